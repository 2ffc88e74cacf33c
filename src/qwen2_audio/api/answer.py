"""Answers while they are generated: text that is certain, the reason for the end, the count of tokens.

`Answers` is a stopping criterion of `generate`: asked after each token, it sees every one of them, and it alone decides
where an answer ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..text.detokenize import Detokenizer, StopBuffer
from ..text.tokenizer import Tokenizer
from ..types import Completion, FinishReason, Usage
from .prompt import Prompt
from .settings import Limit


class Answer:
    """One row."""

    def __init__(self, tokenizer: Tokenizer, eos_ids: frozenset[int], stop: Sequence[str]) -> None:
        self._detokenizer = Detokenizer(tokenizer)
        self._stop = StopBuffer(stop)
        self._eos_ids = eos_ids
        self._text: list[str] = []
        self.tokens = 0  # the one that ends the text included
        self.cached = 0  # positions of the prompt that were not computed again
        self.finish_reason: FinishReason | None = None

    @property
    def text(self) -> str:
        return "".join(self._text)

    def push(self, token: int) -> str:
        """Take a token; the text that became certain with it."""
        self.tokens += 1
        if token in self._eos_ids:
            return self.end("stop")
        new = self._stop.push(self._detokenizer.push(token))
        self._text.append(new)
        if self._stop.stopped:
            self.finish_reason = "stop"
        return new

    def end(self, reason: FinishReason) -> str:
        """Finish for `reason`, unless it is finished; the text that was held back until now."""
        if self.finish_reason is not None:
            return ""
        rest = self._stop.push(self._detokenizer.flush())
        self.finish_reason = "stop" if self._stop.stopped else reason
        rest += self._stop.flush()
        self._text.append(rest)
        return rest


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


def usage_of(prompt: Prompt, answer: Answer) -> Usage:
    """What an answer cost."""
    return Usage(len(prompt.ids), prompt.audio_tokens, answer.tokens, answer.cached)


def completion_of(prompt: Prompt, answer: Answer) -> Completion:
    """A finished answer, whole."""
    assert answer.finish_reason is not None
    return Completion(answer.text, answer.finish_reason, usage_of(prompt, answer), prompt.heard)
