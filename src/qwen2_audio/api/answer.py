"""The answers of one call of `generate`, as a stopping criterion: asked after each token, it alone decides where an
answer ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..engine.answer import Answer, usage_of
from ..engine.request import Prompt
from ..engine.settings import Limit
from ..types import Completion, FinishReason


class Answers:
    """The rows of one call of `generate`."""

    def __init__(self, rows: Sequence[Answer], on_text: Callable[[str], None] | None = None) -> None:
        """`on_text` gets the text of all rows, so it makes sense for one."""
        self.rows = rows
        self._on_text = on_text
        self._cancelled = False

    def cancel(self) -> None:
        """Stop after the token that is being computed. May be called from another thread."""
        self._cancelled = True

    def __call__(self, input_ids: torch.Tensor, scores: Any = None, **_: Any) -> torch.Tensor:
        """Which rows are finished, bool [R], now that `input_ids` [R, L] end in a new token."""
        for answer, token in zip(self.rows, input_ids[:, -1].tolist(), strict=True):
            if answer.finish_reason is None and not self._cancelled:
                self._tell(answer.push(token))
        done = [self._cancelled or answer.finish_reason is not None for answer in self.rows]
        return torch.tensor(done, device=input_ids.device)

    def end(self, limit: Limit) -> None:
        """Finish the rows that nothing has ended yet."""
        for answer in self.rows:
            self._tell(answer.end(self._reason(answer, limit)))

    def _tell(self, text: str) -> None:
        if text and self._on_text is not None:
            self._on_text(text)

    def _reason(self, answer: Answer, limit: Limit) -> FinishReason:
        if self._cancelled:
            return "cancelled"
        return limit.reason if answer.tokens >= limit.tokens else "deadline"  # generation_config's max_time


def completion_of(prompt: Prompt, answer: Answer) -> Completion:
    """A finished answer, whole."""
    assert answer.finish_reason is not None
    return Completion(answer.text, answer.finish_reason, usage_of(prompt, answer), prompt.heard)
