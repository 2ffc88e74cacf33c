"""The loop that every kind of training shares: steps, evaluation, checkpoints, numbers.

A step's loss is the sum over all of its micro-batches divided by all that they count, so that how a step was split
into micro-batches, or over processes, changes neither loss nor gradient.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from ..distributed.process_group import Processes, full_tensor, shard
from ..errors import PromptError, TrainingError
from ..pretrained import Qwen2AudioForConditionalGeneration
from . import checkpoint, optim, recompute
from .batches import check_batch
from .config import TrainConfig
from .feed import MicroBatch, Position, Source, StepData, stand_in, steps_of_data, with_a_clip
from .metrics import Metrics, draw
from .progress import Display, shown

NO_EVALUATION = "No row of the evaluation data could be used; the reasons are in the report."


class Objective(Protocol):
    """What a kind of training brings."""

    unit: str  # what `MicroBatch.count` counts: "tokens" or "pairs"
    numbers: tuple[str, ...]  # the names of the other numbers

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
    save: checkpoint.Save  # writes the adapter, or the checkpoint, into a folder; called by all processes
    autocast: bool = False  # compute in bfloat16
    processes: Processes = field(default_factory=Processes)
    frozen: tuple[nn.Module, ...] = ()  # models that the objective asks beside the trained one

    @property
    def output(self) -> Path:
        return Path(self.config.output)


def run(task: Task) -> Path:
    """Train, from the beginning or from the newest checkpoint; returns the folder of the result.

    Raises:
        TrainingError: the loss or the gradient is no longer a number.
        PromptError: no row of the data can be used.
        ConfigError: the output folder holds another run.
        WeightsError: a checkpoint or the result cannot be written or read.
    """
    config, processes = task.config, task.processes
    torch.manual_seed(config.seed)
    optim.prepare(task.model, config)
    if config.gradient_checkpointing:
        recompute.recompute_layers(task.model)
    if processes.sharded:
        for model in (task.model, *task.frozen):
            shard(model, recompute.layers(model), processes)
    if not processes.first:
        torch.manual_seed(config.seed + processes.rank)  # all begin with the same adapter; dropout then differs
    optimiser = optim.optimiser(task.model, config.optim)
    steps = config.steps or math.ceil(len(task.train.order(0)) * config.epochs / config.accumulate)
    progress, found = checkpoint.Progress(), checkpoint.newest(task.output)
    checkpoint.check_seen_by_all(found, task.output, processes)
    if found is not None:
        progress = checkpoint.load(found, task.fingerprint, task.model, optimiser, processes)
    metrics = Metrics(task.output, progress.step, tensorboard=config.tensorboard, writes=processes.first)
    with shown(task.objective.unit, steps, progress.step, quiet=not processes.first) as display, metrics:
        if found is not None:
            display.line(f"going on after step {progress.step} of {steps}, from {found}")
        _train(_Sitting(task, optimiser, steps, progress, metrics, display))
        checkpoint.write_result(task.output / "final", task.save, processes)
        if processes.first:
            _picture(task.output, display)
    return task.output / "final"


def _picture(output: Path, display: Display) -> None:
    """What is trained is safe: a picture that cannot be drawn is no reason to end in an error."""
    try:
        missing = None if draw(output) is not None else "matplotlib is not installed ('qwen2-audio[plot]')"
    except OSError as error:
        missing = f"it cannot be written: {error.strerror}"
    if missing:
        display.line(f"no picture of the loss: {missing}")


@dataclass
class _Sitting:
    task: Task
    optimiser: torch.optim.Optimizer
    steps: int
    progress: checkpoint.Progress
    metrics: Metrics
    display: Display

    def save(self) -> None:
        task = self.task
        checkpoint.save(task.output, self.progress, task.fingerprint, task.model, self.optimiser, task.processes)


def _train(sitting: _Sitting) -> None:
    task, progress, config = sitting.task, sitting.progress, sitting.task.config
    if progress.step >= sitting.steps:
        return
    if task.evaluation is not None:
        _check_evaluation(task.evaluation)
    optim.training_mode(task.model, config)
    data = _usable_steps(task, Position(progress.epoch, progress.place))
    while progress.step < sitting.steps:
        started = time.monotonic()
        step = next(data)
        numbers = train_step(task, sitting.optimiser, step, progress.step, sitting.steps)
        seconds = time.monotonic() - started
        progress.step += 1
        progress.epoch, progress.place = step.after
        progress.seconds += seconds
        numbers |= {"rate": numbers["count"] / seconds, "seconds": round(progress.seconds, 3)}
        sitting.metrics.add(step=progress.step, epoch=progress.epoch, **numbers)
        sitting.display.step(progress.step, numbers)
        _milestones(sitting)


def _usable_steps(task: Task, start: Position) -> Iterator[StepData]:
    """Steps with something to learn from in at least one process. Raises PromptError after an epoch without."""
    processes, accumulate = task.processes, task.config.accumulate
    without = 0
    for step in steps_of_data(task.train, start, accumulate, rank=processes.rank, size=processes.size):
        count = processes.total({"count": step.count})["count"]
        if count:
            without = 0
            yield replace(step, counted=int(count))
            continue
        without += 1
        if without * accumulate > len(task.train.order(step.after.epoch)) + accumulate:
            raise PromptError("No row of the data could be used in a whole epoch; the reasons are in the report.")


def _milestones(sitting: _Sitting) -> None:
    """What happens every so many steps, and at the end."""
    config, progress = sitting.task.config, sitting.progress
    last = progress.step == sitting.steps
    if sitting.task.evaluation is not None and (last or (config.eval_every and progress.step % config.eval_every == 0)):
        try:
            _evaluate(sitting)
        except PromptError:  # in every process; what was trained must not be lost to it
            sitting.save()
            raise
    if last or progress.step % config.checkpoint_every == 0:
        sitting.save()


def train_step(task: Task, optimiser: torch.optim.Optimizer, data: StepData, step: int, steps: int) -> dict[str, Any]:
    """One optimiser step. Raises TrainingError, with the weights as they were, for a loss that is not a number."""
    rate = optim.learning_rate(step, steps, task.config.optim)
    for group in optimiser.param_groups:
        group["lr"] = rate
    processes, count = task.processes, data.counted or data.count
    factor = processes.size if processes.sharded else 1  # FSDP takes the mean over processes; the sum is wanted
    sums = dict.fromkeys(("loss", *task.objective.numbers), 0.0)
    for batch in _with_stand_ins(data.batches, len(data.batches) + data.empty, task):
        loss, extras = _losses(task, batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            optimiser.zero_grad(set_to_none=True)
            raise TrainingError(_not_a_number("loss", value, step, batch.lines))
        if loss.requires_grad:  # not where only the encoder or the projector learns, and no row has a clip
            (loss * factor / count).backward()
        for name, number in {"loss": value, **extras}.items():
            sums[name] += number
    parameters = list(optim.trained(task.model).values())
    processes.sum_gradients(parameters)
    limit = task.config.optim.clip_norm or math.inf
    norm = float(full_tensor(torch.nn.utils.clip_grad_norm_(parameters, limit)))
    if not math.isfinite(norm):
        optimiser.zero_grad(set_to_none=True)
        lines = [line for batch in data.batches for line in batch.lines]
        raise TrainingError(_not_a_number("gradient's norm", norm, step, lines))
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    means = {name: number / count for name, number in processes.total(sums).items()}
    return {**means, "learning_rate": rate, "grad_norm": norm, "count": count}


def _with_stand_ins(batches: Iterable[MicroBatch], wanted: int, task: Task) -> Iterator[MicroBatch]:
    """The batches, with FSDP as many as `wanted`."""
    found = 0
    for found, batch in enumerate(batches, 1):  # noqa: B007 - read after the loop
        yield batch
    if task.processes.sharded:
        yield from [stand_in()] * (wanted - found)


def _losses(task: Task, batch: MicroBatch) -> tuple[torch.Tensor, dict[str, float]]:
    config, device, tensors = task.model.config, task.model.device, batch.tensors
    if batch.count:
        check_batch(tensors, config.audio_token_index)  # cheap, and nothing wrong is ever learnt
    if task.processes.sharded and "input_features" not in tensors:
        tensors = with_a_clip(tensors, config.audio_token_index, config.audio_config.num_mel_bins)
    tensors = {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}
    with torch.autocast(device.type, torch.bfloat16, enabled=task.autocast):
        loss, extras = task.objective.losses(task.model, tensors)
    return (loss, extras) if batch.count else (loss * 0, {})


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
        checkpoint.write_result(task.output / "best", task.save, task.processes)


def _check_evaluation(source: Source) -> None:
    """Raises PromptError where no row can be used: said now, not after hours of training."""
    if not any(batch is not None and batch.count for batch in source.read(source.order(0), 0)):
        raise PromptError(NO_EVALUATION)


def evaluate(task: Task) -> dict[str, float]:
    """Means over the evaluation data, clips as they are. Raises PromptError where no row can be used."""
    assert task.evaluation is not None
    processes, order = task.processes, task.evaluation.order(0)
    mine = _evaluation_batches(task.evaluation, order[processes.rank :: processes.size], alone=processes.size == 1)
    task.model.eval()
    sums = dict.fromkeys(("count", "loss", *task.objective.numbers), 0.0)
    with torch.no_grad():
        for batch in _with_stand_ins(mine, math.ceil(len(order) / processes.size), task):
            loss, extras = _losses(task, batch)
            for name, number in {"count": batch.count, "loss": float(loss), **extras}.items():
                sums[name] += number
    optim.training_mode(task.model, task.config)
    sums = processes.total(sums)
    count = sums.pop("count")
    if not count:
        raise PromptError(NO_EVALUATION)
    return {name: number / count for name, number in sums.items()}


def _evaluation_batches(source: Source, plan: list[list[int]], *, alone: bool) -> Iterator[MicroBatch]:
    try:
        yield from (batch for batch in source.read(plan, 0) if batch is not None)
    except PromptError:
        if alone:  # a share may well be bad rows only
            raise
