"""An answer while it is generated: pieces of text that are certain, the reason for the end, the count of tokens."""

from __future__ import annotations

from collections.abc import Sequence

from ..inputs.prompt import Prompt
from ..text.detokenize import Detokenizer, StopBuffer
from ..text.tokenizer import Tokenizer
from ..types import FinishReason, Usage


class Answer:
    """One row."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        eos_ids: frozenset[int],
        stop: Sequence[str],
        pieces: dict[int, str] | None = None,
    ) -> None:
        """`pieces`: as Detokenizer has it."""
        self._detokenizer = Detokenizer(tokenizer, token_texts=pieces)
        self._stop = StopBuffer(stop)
        self._eos_ids = eos_ids
        self.tokens = 0  # the one that ends the text included
        self.cached = 0  # positions of the prompt that were not computed again
        self.finish_reason: FinishReason | None = None

    def push(self, token: int) -> str:
        """Take a token; the text that became certain with it."""
        self.tokens += 1
        if token in self._eos_ids:
            return self.end("stop")
        new = self._stop.push(self._detokenizer.push(token))
        if self._stop.stopped:
            self.finish_reason = "stop"
        return new

    def end(self, reason: FinishReason) -> str:
        """Finish for `reason`, unless it is finished; the text that was held back until now."""
        if self.finish_reason is not None:
            return ""
        rest = self._stop.push(self._detokenizer.flush())
        self.finish_reason = "stop" if self._stop.stopped else reason
        return rest + self._stop.flush()


def usage_of(prompt: Prompt, answer: Answer) -> Usage:
    """What an answer cost."""
    return Usage(len(prompt.ids), prompt.audio_tokens, answer.tokens, answer.cached)
