"""Rows of similar length grouped into batches, and examples as padded tensors.

B rows, T positions of the longest, A clips of all rows in order, F mel frames of the longest clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader

from ..errors import ConfigError, PromptError
from ..inputs.collate import stack_clips
from .data import Dataset, Example, Pair
from .loss import IGNORED
from .quarantine import BadRow, Quarantine
from .workers import START_METHOD, start_worker

_POOL = 64  # batches whose rows are sorted by length together
_JITTER = 0.1  # share of a length, drawn anew in each epoch: else a small file would have the same batches every time


def batches(
    dataset: Dataset,
    *,
    batch_size: int = 0,
    batch_tokens: int = 0,
    seed: int = 0,
    epoch: int = 0,
    usable_only: bool = False,
) -> list[list[int]]:
    """The row numbers of one epoch, each once, in batches of similar length; determined by (seed, epoch).

    Give one of the two, else ConfigError. batch_size: rows in a batch. batch_tokens: positions in a batch with padding
    (of a pair, those of the chosen answer), estimated from the headers of the clips: augmentation of the speed may
    exceed it a little. A longer row is a batch of its own. usable_only: without the rows whose length is 0.
    """
    if bool(batch_size) == bool(batch_tokens) or min(batch_size, batch_tokens) < 0:
        raise ConfigError(
            f"batch_size is {batch_size} and batch_tokens is {batch_tokens}; expected one of them above 0."
        )
    draw = np.random.default_rng((seed, epoch))
    lengths = dataset.lengths().astype(np.float64)
    known = lengths > 0
    lengths[~known] = lengths[known].mean() if known.any() else 1.0  # spreads bad rows over the batches
    chosen = np.flatnonzero(known) if usable_only else np.arange(len(lengths))
    order = chosen[draw.permutation(len(chosen))]
    rows = batch_size or max(1, int(batch_tokens / lengths.mean()))
    plan: list[list[int]] = []
    for start in range(0, len(order), rows * _POOL):
        pool = order[start : start + rows * _POOL]
        keys = lengths[pool] * draw.uniform(1 - _JITTER, 1 + _JITTER, len(pool))
        plan += _cut(pool[np.argsort(keys, kind="stable")], lengths, batch_size, batch_tokens)
    return [plan[i] for i in draw.permutation(len(plan))]


def _cut(pool: np.ndarray, lengths: np.ndarray, batch_size: int, batch_tokens: int) -> list[list[int]]:
    """Rows, sorted by length, cut into batches."""
    out: list[list[int]] = []
    batch: list[int] = []
    longest = 0.0
    for index in pool.tolist():
        longest = max(longest, lengths[index])
        full = len(batch) == batch_size if batch_size else longest * (len(batch) + 1) > batch_tokens
        if batch and full:
            out.append(batch)
            batch, longest = [], lengths[index]
        batch.append(index)
    return [*out, batch]


def read(
    dataset: Dataset, plan: Sequence[list[int]], quarantine: Quarantine, *, epoch: int = 0, workers: int = 0
) -> Iterator[list[Example]]:
    """The examples of each batch of `plan`, in its order; bad rows are left out of their batch and go to `quarantine`.

    A batch may therefore be short, or empty: skip it. The result does not depend on `workers`, the number of processes
    that read ahead (0: none). Raises PromptError after the last batch of a plan without any usable row.
    """
    return _read(_Rows(dataset, epoch, pairs=False), plan, quarantine, workers)


def read_pairs(
    dataset: Dataset, plan: Sequence[list[int]], quarantine: Quarantine, *, epoch: int = 0, workers: int = 0
) -> Iterator[list[Pair]]:
    """`read` for DPO."""
    return _read(_Rows(dataset, epoch, pairs=True), plan, quarantine, workers)


class _Rows:
    """What a worker process runs: from the row numbers of a batch to its examples and bad rows."""

    def __init__(self, dataset: Dataset, epoch: int, *, pairs: bool) -> None:
        self.dataset, self.epoch, self.pairs = dataset, epoch, pairs

    def __getitem__(self, indices: list[int]) -> list[Any]:
        return [self._row(index) for index in indices]

    def _row(self, index: int) -> Any:
        try:
            return self.dataset.pair(index, self.epoch) if self.pairs else self.dataset.example(index, self.epoch)
        except BadRow as bad:
            return bad


def _read(rows: _Rows, plan: Sequence[list[int]], quarantine: Quarantine, workers: int) -> Iterator[list[Any]]:
    source: Any = rows  # DataLoader takes any indexable
    loader: Any = DataLoader(
        source,
        sampler=plan,  # an item is a whole batch's indices
        batch_size=None,
        num_workers=workers,
        collate_fn=_unchanged,
        worker_init_fn=start_worker,
        multiprocessing_context=START_METHOD if workers else None,
        generator=torch.Generator(),  # else it advances the global one, and a resumed run would differ
    )
    good = 0
    for batch in loader:
        usable = []
        for row in batch:
            if isinstance(row, BadRow):
                quarantine.add(row)
            else:
                usable.append(row)
        good += len(usable)
        yield usable
    if plan and not good:
        raise PromptError(f"No row of {rows.dataset.path} could be used. {quarantine.summary()}")


def _unchanged(item: Any) -> Any:
    return item


def collate(
    examples: Sequence[Example], pad_id: int, *, side: Literal["right", "left"] = "right"
) -> dict[str, torch.Tensor]:
    """Examples as the model's inputs; the loss does not depend on the `side` of the padding.

    Returns `input_ids`, `attention_mask`, `labels` int64 [B, T] (-100 where nothing is trained); with clips also
    `input_features` float32 [A, mel bins, F] and `feature_attention_mask` int32 [A, F] (1 = sound).
    Raises PromptError for no examples, and for an example without a token to train on.
    """
    if not examples:
        raise PromptError("There is no example in the batch; pass over batches whose rows were all bad.")
    length = max(len(example.ids) for example in examples)
    ids = torch.full((len(examples), length), pad_id)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for row, example in enumerate(examples):
        if not any(example.trained[1:]):
            raise PromptError(f"Line {example.line} has no token to train on; its answer is missing.")
        size = len(example.ids)
        columns = slice(0, size) if side == "right" else slice(length - size, length)
        ids[row, columns] = torch.tensor(example.ids)
        mask[row, columns] = 1
        labels[row, columns] = torch.tensor(example.ids).masked_fill(~torch.tensor(example.trained), IGNORED)
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    clips = [clip for example in examples for clip in example.mels]
    if clips:
        batch |= stack_clips(clips, [count for example in examples for count in example.frames])
    return batch


def check_batch(batch: dict[str, torch.Tensor], audio_id: int) -> None:
    """Raises PromptError where a label is on audio or padding or is not its token, and for a row without labels."""
    ids, labels = batch["input_ids"], batch["labels"]
    trained = labels != IGNORED
    wrong = {
        "audio positions": trained & (ids == audio_id),
        "padding": trained & (batch["attention_mask"] == 0),
        "tokens that are not there": trained & (labels != ids),
    }
    for covered, mask in wrong.items():
        if bool(mask.any()):
            row, position = mask.nonzero()[0].tolist()
            raise PromptError(f"The labels cover {covered}, first in row {row + 1} at position {position}.")
    if not bool(trained[:, 1:].any(1).all()):
        row = int((~trained[:, 1:].any(1)).nonzero()[0])
        raise PromptError(f"Row {row + 1} of the batch has no label; its answer would not be learned.")
