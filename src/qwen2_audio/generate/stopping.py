"""Stopping criteria: a row ends at a length, a time limit, a stop string, an end of text, or a caller's criterion.

A criterion is a callable `(input_ids [B, L], scores) -> bool [B]` (or one bool for all rows), called after every token.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .config import GenerationConfig
from .processors import merge

Criterion = Callable[..., Any]
TAIL = 4  # extra tokens decoded before a stop string's first possible token, because a character may span 4 tokens


@dataclass
class MaxLength:
    """Ends all rows at `length` columns, prompt included."""

    length: int

    def __call__(self, input_ids: Tensor, scores: Any = None, **_: Any) -> Tensor:
        return _all_rows(input_ids, input_ids.shape[1] >= self.length)


@dataclass
class MaxTime:
    """Ends all rows after the step in which `seconds` have passed since `started`, a time.monotonic()."""

    seconds: float
    started: float

    def __call__(self, input_ids: Tensor, scores: Any = None, **_: Any) -> Tensor:
        return _all_rows(input_ids, time.monotonic() - self.started > self.seconds)


@dataclass
class EndOfText:
    """Ends a row whose newest token is one of `eos_ids`."""

    eos_ids: list[int]

    def __call__(self, input_ids: Tensor, scores: Any = None, **_: Any) -> Tensor:
        newest, ended = input_ids[:, -1], _all_rows(input_ids, False)
        for token in self.eos_ids:  # as Python ints: a tensor of them would be copied to the GPU in every step
            ended = ended | (newest == token)
        return ended


class StopStrings:
    """Ends a row whose newest token completes one of `strings`.

    The string may begin in an earlier token, also of the prompt. Text after it in the newest token is kept.
    """

    def __init__(self, tokenizer: Any, strings: str | Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.strings = [strings] if isinstance(strings, str) else list(strings)
        # A token has at least one byte, so a stop string spans at most as many tokens as it has bytes.
        self._tokens = max(len(s.encode()) for s in self.strings) + TAIL

    def __call__(self, input_ids: Tensor, scores: Any = None, **_: Any) -> Tensor:
        ended = [self._completes(row) for row in input_ids[:, -self._tokens :].tolist()]
        return torch.tensor(ended, dtype=torch.bool, device=input_ids.device)

    def _completes(self, ids: list[int]) -> bool:
        # An incomplete character decodes to U+FFFD, which the newest token may change.
        before = len(self.tokenizer.decode(ids[:-1]).rstrip("�")) if len(ids) > 1 else 0
        text = self.tokenizer.decode(ids)
        return any(text.find(s, max(0, before - len(s) + 1)) >= 0 for s in self.strings)


def build(
    config: GenerationConfig, max_length: int, started: float, tokenizer: Any, users: Sequence[Criterion] = ()
) -> list[Criterion]:
    """The criteria of one call. A criterion of `users` replaces the built-in one of its class, or is added."""
    builtin: list[Criterion] = [MaxLength(max_length)]
    if config.max_time is not None:
        builtin.append(MaxTime(config.max_time, started))
    if config.stop_strings is not None:
        builtin.append(StopStrings(tokenizer, config.stop_strings))
    if config.eos_ids:
        builtin.append(EndOfText(config.eos_ids))
    return merge(builtin, users)


def met(criteria: Sequence[Criterion], input_ids: Tensor, scores: Any = None) -> Tensor:
    """Bool [B]: the rows that any of `criteria` ends."""
    done = _all_rows(input_ids, False)
    for criterion in criteria:
        done = done | torch.as_tensor(criterion(input_ids, scores), dtype=torch.bool, device=input_ids.device)
    return done


def _all_rows(input_ids: Tensor, value: bool) -> Tensor:
    return torch.full((input_ids.shape[0],), value, dtype=torch.bool, device=input_ids.device)
