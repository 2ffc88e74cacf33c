"""When a row is finished: full, late, at a stop string, at an end of text, or because the caller says so.

A criterion is a callable `(input_ids [B, L], scores) -> bool [B]` (or one bool for all rows), asked after every token.
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
TAIL = 4  # tokens decoded before the first that could matter: a character's UTF-8 bytes may lie in as many


@dataclass
class MaxLength:
    """Full at `length` columns, prompt included."""

    length: int

    def __call__(self, input_ids: Tensor, scores: Any = None, **_: Any) -> Tensor:
        return _all_rows(input_ids, input_ids.shape[1] >= self.length)


@dataclass
class MaxTime:
    """Over `seconds` after `started` (of time.monotonic). The step under way is finished first."""

    seconds: float
    started: float

    def __call__(self, input_ids: Tensor, scores: Any = None, **_: Any) -> Tensor:
        return _all_rows(input_ids, time.monotonic() - self.started > self.seconds)


@dataclass
class EndOfText:
    """The newest token is one of `eos_ids`."""

    eos_ids: list[int]

    def __call__(self, input_ids: Tensor, scores: Any = None, **_: Any) -> Tensor:
        newest, ended = input_ids[:, -1], _all_rows(input_ids, False)
        for token in self.eos_ids:  # by number: a tensor of them would be copied to the GPU at every step
            ended = ended | (newest == token)
        return ended


class StopStrings:
    """The newest token's text completes one of `strings`.

    The string may begin in earlier tokens, the prompt's included, and what follows it in the newest token stays.
    """

    def __init__(self, tokenizer: Any, strings: str | Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.strings = [strings] if isinstance(strings, str) else list(strings)
        # A token has a byte at least, so no more tokens than bytes can be part of a stop string.
        self._tokens = max(len(s.encode()) for s in self.strings) + TAIL

    def __call__(self, input_ids: Tensor, scores: Any = None, **_: Any) -> Tensor:
        found = [self._completes(row) for row in input_ids[:, -self._tokens :].tolist()]
        return torch.tensor(found, dtype=torch.bool, device=input_ids.device)

    def _completes(self, ids: list[int]) -> bool:
        # A character whose bytes are not all there yet decodes to U+FFFD and may still change.
        before = len(self.tokenizer.decode(ids[:-1]).rstrip("�")) if len(ids) > 1 else 0
        text = self.tokenizer.decode(ids)
        return any(text.find(s, max(0, before - len(s) + 1)) >= 0 for s in self.strings)


def build(
    config: GenerationConfig, max_length: int, started: float, tokenizer: Any, users: Sequence[Criterion] = ()
) -> list[Criterion]:
    """The criteria of one call. One of `users` replaces the built-in one of the same class, or is added."""
    own: list[Criterion] = [MaxLength(max_length)]
    if config.max_time is not None:
        own.append(MaxTime(config.max_time, started))
    if config.stop_strings is not None:
        own.append(StopStrings(tokenizer, config.stop_strings))
    if config.eos_ids:
        own.append(EndOfText(config.eos_ids))
    return merge(own, users)


def met(criteria: Sequence[Criterion], input_ids: Tensor, scores: Any = None) -> Tensor:
    """Bool [B]: rows for which any of `criteria` holds."""
    done = _all_rows(input_ids, False)
    for criterion in criteria:
        done = done | torch.as_tensor(criterion(input_ids, scores), dtype=torch.bool, device=input_ids.device)
    return done


def _all_rows(input_ids: Tensor, value: bool) -> Tensor:
    return torch.full((input_ids.shape[0],), value, dtype=torch.bool, device=input_ids.device)
