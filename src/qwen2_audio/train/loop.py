"""The loop that every kind of training shares: steps, evaluation, checkpoints, numbers.

A step's loss is the sum over all of its micro-batches divided by all that they count, so that how a step was split
into micro-batches changes neither loss nor gradient.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from ..errors import TrainingError
from ..pretrained import Qwen2AudioForConditionalGeneration
from . import checkpoint, optim
from .batches import check_batch
from .config import TrainConfig
from .feed import MicroBatch, Position, Source, StepData, steps_of_data
from .metrics import Metrics, draw
from .progress import Display, shown


class Objective(Protocol):
    """What a kind of training brings."""

    unit: str  # what `MicroBatch.count` counts: "tokens" or "pairs"

    def losses(
        self, model: Qwen2AudioForConditionalGeneration, batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """The sum of the losses of what the batch counts, and sums of other numbers to report."""
        ...


@dataclass(frozen=True)
class Task:
    """One run: what is trained, on what, towards what."""

    config: TrainConfig
    model: Qwen2AudioForConditionalGeneration
    objective: Objective
    train: Source
    evaluation: Source | None
    fingerprint: dict[str, Any]  # what must be the same for a run to go on
    save: Callable[[Path], None]  # writes the adapter, or the checkpoint, into a folder
    autocast: bool = False  # compute in bfloat16

    @property
    def output(self) -> Path:
        return Path(self.config.output)


def run(task: Task) -> Path:
    """Train, from the beginning or from the newest checkpoint; returns the folder of the result.

    Raises:
        TrainingError: the loss or the gradient is no longer a number.
        PromptError: no row of the data can be used.
        ConfigError: the output folder holds another run.
    """
    config, model = task.config, task.model
    torch.manual_seed(config.seed)
    optim.prepare(model, config)
    optimiser = optim.optimiser(model, config.optim)
    steps = config.steps or math.ceil(len(task.train.order(0)) * config.epochs / config.accumulate)
    progress, found = checkpoint.Progress(), checkpoint.newest(task.output)
    if found is not None:
        progress = checkpoint.load(found, task.fingerprint, model, optimiser)
    metrics = Metrics(task.output, progress.step)
    with shown(task.objective.unit, steps, progress.step) as display:
        if found is not None:
            display.line(f"going on after step {progress.step} of {steps}, from {found}")
        _train(_Sitting(task, optimiser, steps, progress, metrics, display))
        checkpoint.write_result(task.output / "final", task.save)
        picture = draw(task.output)
        if picture is None:
            display.line("no picture of the loss: matplotlib is not installed ('qwen2-audio[plot]')")
    return task.output / "final"


@dataclass
class _Sitting:
    task: Task
    optimiser: torch.optim.Optimizer
    steps: int
    progress: checkpoint.Progress
    metrics: Metrics
    display: Display

    def save(self) -> None:
        checkpoint.save(self.task.output, self.progress, self.task.fingerprint, self.task.model, self.optimiser)


def _train(sitting: _Sitting) -> None:
    task, progress, config = sitting.task, sitting.progress, sitting.task.config
    if progress.step >= sitting.steps:
        return
    optim.training_mode(task.model, config)
    data = steps_of_data(task.train, Position(progress.epoch, progress.place), config.accumulate)
    while progress.step < sitting.steps:
        started = time.monotonic()
        step = next(data)
        numbers = train_step(task, sitting.optimiser, step, progress.step, sitting.steps)
        seconds = time.monotonic() - started
        progress.step += 1
        progress.epoch, progress.place = step.after
        progress.seconds += seconds
        numbers |= {"rate": step.count / seconds, "seconds": round(progress.seconds, 3)}
        sitting.metrics.add(step=progress.step, epoch=progress.epoch, **numbers)
        sitting.display.step(progress.step, numbers)
        _milestones(sitting)


def _milestones(sitting: _Sitting) -> None:
    """What happens every so many steps, and at the end."""
    config, progress = sitting.task.config, sitting.progress
    last = progress.step == sitting.steps
    if sitting.task.evaluation is not None and (last or (config.eval_every and progress.step % config.eval_every == 0)):
        _evaluate(sitting)
    if last or progress.step % config.checkpoint_every == 0:
        sitting.save()


def train_step(task: Task, optimiser: torch.optim.Optimizer, data: StepData, step: int, steps: int) -> dict[str, Any]:
    """One optimiser step. Raises TrainingError, with the weights as they were, for a loss that is not a number."""
    rate = optim.learning_rate(step, steps, task.config.optim)
    for group in optimiser.param_groups:
        group["lr"] = rate
    total, sums = 0.0, dict[str, float]()
    for batch in data.batches:
        loss, extras = _losses(task, batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            optimiser.zero_grad(set_to_none=True)
            raise TrainingError(_not_a_number("loss", value, step, batch.lines))
        (loss / data.count).backward()
        total += value
        for name, number in extras.items():
            sums[name] = sums.get(name, 0.0) + number
    parameters = list(optim.trained(task.model).values())
    limit = task.config.optim.clip_norm or math.inf
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
    if not math.isfinite(norm):
        optimiser.zero_grad(set_to_none=True)
        lines = [line for batch in data.batches for line in batch.lines]
        raise TrainingError(_not_a_number("gradient's norm", norm, step, lines))
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    means = {name: number / data.count for name, number in sums.items()}
    return {"loss": total / data.count, **means, "learning_rate": rate, "grad_norm": norm, "count": data.count}


def _losses(task: Task, batch: MicroBatch) -> tuple[torch.Tensor, dict[str, float]]:
    check_batch(batch.tensors, task.model.config.audio_token_index)  # cheap, and nothing wrong is ever learnt
    device = task.model.device
    with torch.autocast(device.type, torch.bfloat16, enabled=task.autocast):
        return task.objective.losses(task.model, batch.to(device))


def _not_a_number(what: str, value: float, step: int, lines: Iterable[int]) -> str:
    rows = ", ".join(map(str, lines))
    return (
        f"The {what} is {value} in step {step + 1}, whose rows are on line(s) {rows} of the data. The weights were not "
        "changed, and the last checkpoint is whole: look at these rows, or begin again with a lower learning_rate."
    )


def _evaluate(sitting: _Sitting) -> None:
    task, progress = sitting.task, sitting.progress
    numbers = evaluate(task)
    sitting.metrics.add(step=progress.step, **{f"eval_{name}": value for name, value in numbers.items()})
    better = math.isfinite(numbers["loss"]) and (progress.best is None or numbers["loss"] < progress.best)
    shown = "  ".join(f"{name} {value:.4f}" for name, value in numbers.items())
    sitting.display.line(f"step {progress.step}: evaluation {shown}{', the best so far' if better else ''}")
    if better:
        progress.best = numbers["loss"]
        checkpoint.write_result(task.output / "best", task.save)


def evaluate(task: Task) -> dict[str, float]:
    """Means over the evaluation data, clips as they are. Raises PromptError where no row can be used."""
    assert task.evaluation is not None
    task.model.eval()
    count, sums = 0, {"loss": 0.0}
    with torch.no_grad():
        for batch in task.evaluation.read(task.evaluation.order(0), 0):
            if batch is None:
                continue
            loss, extras = _losses(task, batch)
            count += batch.count
            for name, number in {"loss": float(loss), **extras}.items():
                sums[name] = sums.get(name, 0.0) + number
    optim.training_mode(task.model, task.config)
    return {name: number / count for name, number in sums.items()}
