"""Micro-batches in their order; where the next one lies is known at all times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch

from ..errors import PromptError


@dataclass(frozen=True)
class MicroBatch:
    """What one forward and backward pass takes."""

    tensors: dict[str, torch.Tensor]
    lines: list[int]  # of the data file, for whoever looks for a bad row
    count: int  # what the loss is a mean over: trained tokens, or pairs

    def to(self, device: torch.device) -> dict[str, torch.Tensor]:
        return {name: tensor.to(device, non_blocking=True) for name, tensor in self.tensors.items()}


class Position(NamedTuple):
    """The next micro-batch: the epoch, and its place there."""

    epoch: int
    place: int


@dataclass(frozen=True)
class StepData:
    """All that one optimiser step learns from."""

    batches: list[MicroBatch]
    after: Position

    @property
    def count(self) -> int:
        return sum(batch.count for batch in self.batches)


@dataclass(frozen=True)
class Source:
    """Where micro-batches come from."""

    order: Callable[[int], list[list[int]]]  # epoch -> the rows of each of its micro-batches
    read: Callable[[list[list[int]], int], Iterator[MicroBatch | None]]  # rows of several, epoch; None: all rows bad


def steps_of_data(source: Source, start: Position, accumulate: int) -> Iterator[StepData]:
    """Endless steps of `accumulate` micro-batches from `start` on; a step may reach into the next epoch.

    Raises PromptError when a whole epoch has nothing to learn from.
    """
    group: list[MicroBatch] = []
    epoch, first = start
    while True:
        for place, batch in enumerate(_rest_of_epoch(source, epoch, first), first):
            if batch is not None:
                group.append(batch)
            if len(group) == accumulate:
                yield StepData(group, Position(epoch, place + 1))
                group = []
        epoch, first = epoch + 1, 0


def _rest_of_epoch(source: Source, epoch: int, first: int) -> Iterator[MicroBatch | None]:
    try:
        yield from source.read(source.order(epoch)[first:], epoch)
    except PromptError:
        if not first:  # after a resume, the rest of an epoch may well be bad rows only
            raise
