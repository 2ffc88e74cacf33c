"""Token ids to text as they arrive, without half characters and without parts of a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    from .tokenizer import Tokenizer

REPLACEMENT = "\ufffd"  # bytes that are not UTF-8, such as an unfinished character, decode to this


class Detokenizer:
    """Decodes ids one at a time. The results of `push` and `flush`, joined, are the decode of all ids.

    A character may be spread over several tokens ("中" is three bytes): its text is returned once it is complete.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, skip_special_tokens: bool = True, token_texts: dict[int, str] | None = None
    ) -> None:
        """`token_texts` caches the text of ids that are whole characters. Detokenizers with the same tokenizer and
        options may share one."""
        self._tokenizer = tokenizer
        self._token_texts = {} if token_texts is None else token_texts
        self._skip_special_tokens = skip_special_tokens
        self._pending: list[int] = []  # ids since the text last ended in a complete character
        self._emitted = 0  # characters of the pending ids' text that were already returned

    def push(self, token_id: int) -> str:
        """The text that is certain with this id and was not before; it may be empty."""
        if not self._pending and (text := self._token_texts.get(token_id)) is not None:
            return text
        self._pending.append(int(token_id))
        text = self._text()
        emitted = self._emitted
        if not text.endswith(REPLACEMENT):
            if len(self._pending) == 1:
                self._token_texts[self._pending[0]] = text
            self._restart()
            return text[emitted:]
        certain = text.rstrip(REPLACEMENT)  # later ids can only change the replacement characters at the end
        self._emitted = len(certain)
        return certain[emitted:]

    def flush(self) -> str:
        """The remaining text; an unfinished character is U+FFFD, as in a decode of all ids."""
        rest = self._text()[self._emitted :]
        self._restart()
        return rest

    def _text(self) -> str:
        text: str = self._tokenizer.decode(self._pending, skip_special_tokens=self._skip_special_tokens)
        return text

    def _restart(self) -> None:
        self._pending, self._emitted = [], 0


class StopBuffer:
    """Passes text on until a stop string occurs, and holds back text that may be the beginning of one.

    The stop string that is complete first ends the text; of two that end at the same character, the longer one. The
    stop string and the text after it are dropped. The result does not depend on how the text is divided into pushes.
    """

    def __init__(self, stop_strings: Sequence[str]):
        """Raises ConfigError for an empty stop string."""
        self._stops = (stop_strings,) if isinstance(stop_strings, str) else tuple(stop_strings)
        if not all(self._stops):
            raise ConfigError("An empty stop string was found; every stop string needs at least one character.")
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """The text that is certain not to be part of a stop string; always "" after a stop."""
        if self.stopped:
            return ""
        if not self._stops:
            return text
        text = self._held + text
        stops = [(text.find(stop) + len(stop), -len(stop)) for stop in self._stops if stop in text]
        if stops:
            end, negative_length = min(stops)  # the earliest end; of equal ends, the longest stop string
            self._held, self.stopped = "", True
            return text[: end + negative_length]
        num_held = max((overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - num_held :]
        return text[: len(text) - num_held]

    def flush(self) -> str:
        """The text that was held back, when no more text follows."""
        rest, self._held = self._held, ""
        return rest


def overlap(text: str, stop: str) -> int:
    """Length of the longest suffix of `text` that is a proper prefix of `stop`: ("is a S", "STOP") -> 1."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
