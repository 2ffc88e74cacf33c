"""Micro-batches in a fixed order; the position of the next one is known after every step.

A step has the same micro-batches however many processes share them: process r of n takes every n-th, from the r-th on.
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
    lines: list[int]  # of the data file, from 1: named in errors
    count: int  # what the loss is a mean over: trained tokens (SFT) or pairs (DPO)


class Position(NamedTuple):
    """Where the next micro-batch is: its epoch, and its number in the epoch's order, from 0."""

    epoch: int
    batch: int


@dataclass(frozen=True)
class StepData:
    """This process's share of one optimiser step."""

    batches: list[MicroBatch]
    after: Position  # where the next step begins
    empty: int = 0  # micro-batches whose rows were all bad
    total_count: int = 0  # `count` over all processes; 0: not known yet

    @property
    def count(self) -> int:
        """What this process's micro-batches count: trained tokens, or pairs."""
        return sum(batch.count for batch in self.batches)


@dataclass(frozen=True)
class Source:
    """Where micro-batches come from."""

    order: Callable[[int], list[list[int]]]  # epoch -> the rows of each of its micro-batches
    # (rows of each micro-batch, epoch) -> the micro-batches; None where all rows of one are bad
    read: Callable[[list[list[int]], int], Iterator[MicroBatch | None]]


def steps_of_data(
    source: Source, start: Position, accumulate: int, *, rank: int = 0, size: int = 1
) -> Iterator[StepData]:
    """Endless steps of `accumulate` micro-batches from `start` on; a step may reach into the next epoch.

    Yields the share of process `rank` of `size`; `accumulate` is a multiple of `size`. A step is empty where all of its
    rows are bad. Raises PromptError when a single process has no usable row in a whole epoch.
    """
    group: list[MicroBatch | None] = []  # of the current step, read by this process
    seen, (epoch, first) = 0, start  # micro-batches of all processes since `start`
    while True:
        order = source.order(epoch)
        share = [rows for number, rows in enumerate(order[first:], seen) if number % size == rank]
        batches = source.read(share, epoch)
        for number in range(first, len(order)):
            if seen % size == rank:
                group.append(next(batches))
            seen += 1
            if seen % accumulate == 0:
                usable = [batch for batch in group if batch is not None]
                yield StepData(usable, Position(epoch, number + 1), len(group) - len(usable))
                group = []
        try:
            next(batches, None)  # at its end `read` raises PromptError if no row was usable
        except PromptError:
            if first == 0 and size == 1:  # the rest of an epoch, or a share of it, may consist of bad rows only
                raise
        epoch, first = epoch + 1, 0


def check_shares(accumulate: int, processes: Processes) -> None:
    """Raises ConfigError where the processes cannot all have the same number of micro-batches in a step."""
    if accumulate % processes.size:
        raise ConfigError(
            f"accumulate is {accumulate}, and {processes.size} processes share the micro-batches of a step; expected a "
            f"multiple of {processes.size}. The learning rate is right for the same step on any number of processes."
        )


def dummy_batch() -> MicroBatch:
    """What a process computes and discards while other processes have one micro-batch more: with FSDP all of them must
    run through the layers equally often. It has two rows, so that it is also a pair for DPO."""
    ids = torch.zeros((2, 1), dtype=torch.int64)
    return MicroBatch({"input_ids": ids, "attention_mask": ids + 1, "labels": ids + IGNORED}, [], 0)


def with_a_clip(batch: dict[str, torch.Tensor], audio_id: int, mel_bins: int) -> dict[str, torch.Tensor]:
    """A batch without clips plus 40 ms of silence at the end of its first row.

    Nothing before it attends to it, but the encoder runs, which FSDP needs where other processes have clips.
    Returns new tensors; `input_ids`, `attention_mask`, `labels` are one column wider.
    """
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
