"""The training loop that SFT and DPO share: optimiser steps, evaluation, checkpoints, metrics.

The loss of a step is the sum of the losses of all its micro-batches, divided by the sum of their counts (trained
tokens, or pairs). How a step is split into micro-batches or over processes changes neither loss nor gradient.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from ..distributed.process_group import Processes, full_tensor, shard
from ..errors import PromptError, TrainingError
from ..lora import PARTS
from ..model import recompute
from ..pretrained import Qwen2AudioForConditionalGeneration
from . import checkpoint, optim
from .batches import check_batch
from .config import TrainConfig
from .feed import MicroBatch, Position, Source, StepData, dummy_batch, steps_of_data, with_a_clip
from .interrupt import Interruption, signals_noted
from .metrics import Metrics, draw
from .progress import Display, shown
from .workers import deaths_named

NO_EVALUATION = "No row of the evaluation data could be used; the reasons are in the report."


class Objective(Protocol):
    """The loss of a kind of training."""

    unit: str  # what `MicroBatch.count` counts: "tokens" or "pairs"
    metric_names: tuple[str, ...]  # of what is reported beside the loss

    def losses(
        self, model: Qwen2AudioForConditionalGeneration, batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """The sum of the losses over what the batch counts, and the sum of each metric of `metric_names`."""
        ...


@dataclass(frozen=True)
class Task:
    """One run: model, objective and data."""

    config: TrainConfig
    model: Qwen2AudioForConditionalGeneration
    objective: Objective
    train: Source
    evaluation: Source | None
    fingerprint: dict[str, Any]  # settings that must be the same for a run to go on
    save: checkpoint.Save  # writes the adapter or the checkpoint into a folder; called by all processes
    autocast: bool = False  # compute in bfloat16
    processes: Processes = field(default_factory=Processes)
    notes: tuple[str, ...] = ()  # said at the start
    frozen: tuple[nn.Module, ...] = ()  # models that the objective runs beside the trained one (DPO's reference)

    @property
    def output(self) -> Path:
        return Path(self.config.output)


def run(task: Task) -> Path:
    """Train from the beginning or from the newest checkpoint; returns the folder of the result.

    Raises:
        TrainingError: the loss or the norm of the gradient is NaN or infinite.
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
            shard(model, recompute.recomputed_layers(model), processes)
    if not processes.first:
        # After the adapter was drawn, which is the same in all processes; dropout is not.
        torch.manual_seed(config.seed + processes.rank)
    optimiser = optim.optimiser(task.model, config.optim)
    epoch_batches = len(task.train.order(0))
    steps = config.steps or math.ceil(epoch_batches * config.epochs / config.accumulate)
    progress, newest = checkpoint.Progress(), checkpoint.newest(task.output)
    checkpoint.check_seen_by_all(newest, task.output, processes)
    if newest is not None:
        progress = checkpoint.load(newest, task.fingerprint, task.model, optimiser, processes)
    metrics = Metrics(task.output, progress.step, tensorboard=config.tensorboard, writes=processes.first)
    with shown(task.objective.unit, steps, progress.step, quiet=not processes.first) as display, metrics:
        if newest is not None:
            display.line(f"going on after step {progress.step} of {steps}, from {newest}")
        for note in (*task.notes, *_note_on_accumulation(epoch_batches, config.accumulate)):
            display.line(note)
        _train(RunState(task, optimiser, steps, progress, metrics, display))
        checkpoint.write_result(task.output / "final", task.save, processes)
        if processes.first:
            _draw_loss(task.output, display)
    return task.output / "final"


def _note_on_accumulation(epoch_batches: int, accumulate: int) -> list[str]:
    if accumulate <= epoch_batches:
        return []
    return [
        f"a step takes accumulate = {accumulate} micro-batches, and an epoch has {epoch_batches}: every step goes over "
        f"the data {accumulate / epoch_batches:.3g} times"
    ]


def _draw_loss(output: Path, display: Display) -> None:
    """Draw loss.png. A failure is only reported, because the result is written already."""
    try:
        problem = None if draw(output) is not None else "matplotlib is not installed ('qwen2-audio[plot]')"
    except OSError as error:
        problem = f"it cannot be written: {error.strerror}"
    if problem:
        display.line(f"no picture of the loss: {problem}")


@dataclass
class RunState:
    """A run while it trains, in one process."""

    task: Task
    optimiser: torch.optim.Optimizer
    steps: int  # of the whole run
    progress: checkpoint.Progress
    metrics: Metrics
    display: Display

    def save(self) -> None:
        """Write a checkpoint. Raises WeightsError."""
        task = self.task
        run = (task.output, self.progress, task.fingerprint, task.model, self.optimiser, task.processes)
        checkpoint.save(*run, task.save, adapter=task.config.method == "lora")


def _train(state: RunState) -> None:
    task, progress, config = state.task, state.progress, state.task.config
    if progress.step >= state.steps:
        return
    if task.evaluation is not None:
        _check_evaluation(task.evaluation)
    optim.training_mode(task.model, config)
    with (
        deaths_named(config.data.workers),
        contextlib.closing(_usable_steps(task, Position(progress.epoch, progress.batch))) as data,  # and its workers
        signals_noted() as interruption,
    ):
        _steps(state, data, interruption)


def _steps(state: RunState, data: Iterator[StepData], interruption: Interruption) -> None:
    task, progress = state.task, state.progress
    while progress.step < state.steps:
        started = time.monotonic()
        step = next(data, None)
        if step is None:
            _end_early(state)
            return
        values = train_step(task, state.optimiser, step, progress.step, state.steps)
        seconds = time.monotonic() - started
        progress.step += 1
        progress.epoch, progress.batch = step.after
        progress.seconds += seconds
        values |= {"rate": values["count"] / seconds, "seconds": round(progress.seconds, 3)}
        state.metrics.add(step=progress.step, epoch=progress.epoch, **values)
        state.display.step(progress.step, values)
        on_step_end(state)
        if progress.step < state.steps and task.processes.total({"signal": interruption.signal})["signal"]:
            _end_interrupted(state, interruption)


def _end_interrupted(state: RunState, interruption: Interruption) -> None:
    """Write a checkpoint, say how to go on, and end the program."""
    state.save()
    folder = checkpoint.newest(state.task.output)
    what = "adapter" if state.task.config.method == "lora" else "model"
    state.display.line(
        f"interrupted after step {state.progress.step} of {state.steps}, saved in {folder}; its {what} can be used as "
        "it is. Run the same command again to go on."
    )
    interruption.end()


def _usable_steps(task: Task, start: Position) -> Generator[StepData, None, None]:
    """The steps in which at least one process has a usable row. Raises PromptError after an epoch without one.

    They end where a run of `epochs` has gone over the data once more than it should, as many rows were damaged.
    """
    processes, accumulate = task.processes, task.config.accumulate
    empty_steps = 0  # in succession
    begin = start
    for step in steps_of_data(task.train, start, accumulate, rank=processes.rank, size=processes.size):
        if task.config.epochs and begin.epoch > math.ceil(task.config.epochs):
            return
        begin = step.after
        count = processes.total({"count": step.count})["count"]
        if count:
            empty_steps = 0
            yield replace(step, total_count=int(count))
            continue
        empty_steps += 1
        if empty_steps * accumulate > len(task.train.order(step.after.epoch)) + accumulate:
            raise PromptError("No row of the data could be used in a whole epoch; the reasons are in the report.")


def _end_early(state: RunState) -> None:
    """End a run whose steps were planned for rows that could not be read."""
    state.display.line(
        f"ends after step {state.progress.step} of {state.steps}: so many rows could not be read that the other steps "
        "would go over the rest again and again; the reasons are in the report"
    )
    state.steps = state.progress.step
    on_step_end(state)


def on_step_end(state: RunState) -> None:
    """Evaluate every `eval_every` steps, save a checkpoint every `checkpoint_every`, and both after the last step."""
    config, progress = state.task.config, state.progress
    last = progress.step == state.steps
    if state.task.evaluation is not None and (last or (config.eval_every and progress.step % config.eval_every == 0)):
        try:
            _evaluate(state)
        except PromptError:  # in every process; the training so far must not be lost
            state.save()
            raise
    if last or progress.step % config.checkpoint_every == 0:
        state.save()


def train_step(task: Task, optimiser: torch.optim.Optimizer, data: StepData, step: int, steps: int) -> dict[str, Any]:
    """Step `step` (from 0) of `steps`; returns its metrics, "loss" among them, as means over what all processes count.

    Raises TrainingError, with the weights unchanged, where the loss or the norm of the gradient is NaN or infinite.
    """
    rate = optim.learning_rate(step, steps, task.config.optim)
    for group in optimiser.param_groups:
        group["lr"] = rate
    processes, count = task.processes, data.total_count or data.count
    factor = processes.size if processes.sharded else 1  # FSDP averages gradients over processes; here they are summed
    sums = dict.fromkeys(("loss", *task.objective.metric_names), 0.0)
    for batch in _with_dummy_batches(data.batches, len(data.batches) + data.empty, task):
        loss, extras = _losses(task, batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            optimiser.zero_grad(set_to_none=True)
            raise TrainingError(_not_a_number("loss", value, step, batch.lines))
        if loss.requires_grad:  # it does not where only encoder or projector are trained and no row has a clip
            (loss * factor / count).backward()
        for name, metric in {"loss": value, **extras}.items():
            sums[name] += metric
    parameters = list(optim.trained(task.model).values())
    processes.sum_gradients(parameters)
    _drop_gradients_of_silence(task, data)
    limit = task.config.optim.clip_norm or math.inf
    norm = float(full_tensor(torch.nn.utils.clip_grad_norm_(parameters, limit)))
    if not math.isfinite(norm):
        optimiser.zero_grad(set_to_none=True)
        lines = [line for batch in data.batches for line in batch.lines]
        raise TrainingError(_not_a_number("gradient's norm", norm, step, lines))
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    means = {name: total / count for name, total in processes.total(sums).items()}
    return {**means, "learning_rate": rate, "grad_norm": norm, "count": count}


def _drop_gradients_of_silence(task: Task, data: StepData) -> None:
    """With FSDP, in a step without a clip: no gradients for encoder and projector, as with one process, instead of the
    zeros from `with_a_clip`, for which AdamW would move them by its moments and the weight decay."""
    if not task.processes.sharded:
        return
    heard = sum("input_features" in batch.tensors for batch in data.batches)
    if task.processes.total({"heard": heard})["heard"]:
        return
    for part in ("encoder", "projector"):
        for parameter in task.model.get_submodule(PARTS[part]).parameters():
            parameter.grad = None


def _with_dummy_batches(batches: Iterable[MicroBatch], expected: int, task: Task) -> Iterator[MicroBatch]:
    """The batches, and with FSDP dummy ones after them until there are `expected`."""
    count = 0
    for count, batch in enumerate(batches, 1):  # noqa: B007 - read after the loop
        yield batch
    if task.processes.sharded:
        yield from [dummy_batch()] * (expected - count)


def _losses(task: Task, batch: MicroBatch) -> tuple[torch.Tensor, dict[str, float]]:
    config, device, tensors = task.model.config, task.model.device, batch.tensors
    if batch.count:
        check_batch(tensors, config.audio_token_index)  # costs little, and no wrong label is ever trained on
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


def _evaluate(state: RunState) -> None:
    task, progress = state.task, state.progress
    means = evaluate(task)
    state.metrics.add(step=progress.step, **{f"eval_{name}": value for name, value in means.items()})
    better = math.isfinite(means["loss"]) and (progress.best is None or means["loss"] < progress.best)
    text = "  ".join(f"{name} {value:.4f}" for name, value in means.items())
    state.display.line(f"step {progress.step}: evaluation {text}{', the best so far' if better else ''}")
    if better:
        progress.best = means["loss"]
        checkpoint.write_result(task.output / "best", task.save, task.processes)


def _check_evaluation(source: Source) -> None:
    """Raises PromptError where no row can be used: now, not after hours of training."""
    if not any(batch is not None and batch.count for batch in source.read(source.order(0), 0)):
        raise PromptError(NO_EVALUATION)


def evaluate(task: Task) -> dict[str, float]:
    """Loss and metrics as means over the evaluation data, without augmentation. Raises PromptError where no row can be
    used."""
    assert task.evaluation is not None
    processes, order = task.processes, task.evaluation.order(0)
    share = _evaluation_batches(task.evaluation, order[processes.rank :: processes.size], alone=processes.size == 1)
    task.model.eval()
    sums = dict.fromkeys(("count", "loss", *task.objective.metric_names), 0.0)
    with torch.no_grad():
        for batch in _with_dummy_batches(share, math.ceil(len(order) / processes.size), task):
            loss, extras = _losses(task, batch)
            for name, value in {"count": batch.count, "loss": float(loss), **extras}.items():
                sums[name] += value
    optim.training_mode(task.model, task.config)
    sums = processes.total(sums)
    count = sums.pop("count")
    if not count:
        raise PromptError(NO_EVALUATION)
    return {name: total / count for name, total in sums.items()}


def _evaluation_batches(source: Source, plan: list[list[int]], *, alone: bool) -> Iterator[MicroBatch]:
    try:
        yield from (batch for batch in source.read(plan, 0) if batch is not None)
    except PromptError:
        if alone:  # one process's share of the rows may consist of bad ones only
            raise
