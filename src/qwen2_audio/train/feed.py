"""Micro-batches in their order; where the next one lies is known at all times.

A step's micro-batches are the same ones however many processes share them: each takes every so-manieth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch

from ..distributed.process_group import Processes
from ..errors import ConfigError, PromptError
from .loss import IGNORED


@dataclass(frozen=True)
class MicroBatch:
    """What one forward and backward pass takes."""

    tensors: dict[str, torch.Tensor]
    lines: list[int]  # of the data file, for whoever looks for a bad row
    count: int  # what the loss is a mean over: trained tokens, or pairs


class Position(NamedTuple):
    """The next micro-batch: the epoch, and its place there."""

    epoch: int
    place: int


@dataclass(frozen=True)
class StepData:
    """What this process does of one optimiser step."""

    batches: list[MicroBatch]
    after: Position
    empty: int = 0  # micro-batches whose rows were all bad
    counted: int = 0  # `count` of all processes together; 0: not asked yet

    @property
    def count(self) -> int:
        return sum(batch.count for batch in self.batches)


@dataclass(frozen=True)
class Source:
    """Where micro-batches come from."""

    order: Callable[[int], list[list[int]]]  # epoch -> the rows of each of its micro-batches
    read: Callable[[list[list[int]], int], Iterator[MicroBatch | None]]  # rows of several, epoch; None: all rows bad


def steps_of_data(
    source: Source, start: Position, accumulate: int, *, rank: int = 0, size: int = 1
) -> Iterator[StepData]:
    """Endless steps of `accumulate` micro-batches from `start` on; a step may reach into the next epoch.

    Process `rank` of `size`, of which `accumulate` is a multiple, gets its share of each. A step may have nothing in
    it. Raises PromptError when a process alone has nothing to learn from in a whole epoch.
    """
    group: list[MicroBatch | None] = []
    taken, (epoch, first) = 0, start
    while True:
        order = source.order(epoch)
        mine = [rows for number, rows in enumerate(order[first:], taken) if number % size == rank]
        read = source.read(mine, epoch)
        for place in range(first, len(order)):
            if taken % size == rank:
                group.append(next(read))
            taken += 1
            if taken % accumulate == 0:
                usable = [batch for batch in group if batch is not None]
                yield StepData(usable, Position(epoch, place + 1), len(group) - len(usable))
                group = []
        try:
            next(read, None)  # it ends by saying whether there was anything at all
        except PromptError:
            if first == 0 and size == 1:  # the rest of an epoch, or a share of it, may well be bad rows only
                raise
        epoch, first = epoch + 1, 0


def check_shares(accumulate: int, processes: Processes) -> None:
    """Every process must have the same number of micro-batches in a step. Raises ConfigError."""
    if accumulate % processes.size:
        raise ConfigError(
            f"accumulate is {accumulate}, and {processes.size} processes share the micro-batches of a step; expected a "
            f"multiple of {processes.size}. The learning rate is right for the same step on any number of processes."
        )


def stand_in() -> MicroBatch:
    """What a process computes, and throws away, while the others have a micro-batch more: with FSDP all of them must
    run through the layers equally often. Two rows, so that it is a pair for DPO too."""
    ids = torch.zeros((2, 1), dtype=torch.int64)
    return MicroBatch({"input_ids": ids, "attention_mask": ids + 1, "labels": ids + IGNORED}, [], 0)


def with_a_clip(batch: dict[str, torch.Tensor], audio_id: int, mel_bins: int) -> dict[str, torch.Tensor]:
    """A batch without sound, with 40 ms of silence after everything else in its first row: nothing before it can
    attend to it, but the encoder runs, as FSDP needs where other processes have clips."""
    rows, device = len(batch["input_ids"]), batch["input_ids"].device
    columns = {"input_ids": (audio_id, 0), "attention_mask": (1, 0), "labels": (IGNORED, IGNORED)}
    out = dict(batch)
    for name, (first, others) in columns.items():
        column = torch.full((rows, 1), others, dtype=batch[name].dtype, device=device)
        column[0] = first
        out[name] = torch.cat((batch[name], column), 1)
    out["input_features"] = torch.zeros(1, mel_bins, 6, device=device)
    out["feature_attention_mask"] = (torch.arange(6, device=device) < 4)[None].int()  # one audio token
    return out
