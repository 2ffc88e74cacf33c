"""Token ids to text while they arrive: no half characters, no part of a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    from .tokenizer import Tokenizer

REPLACEMENT = "\ufffd"  # what bytes that are no UTF-8 decode to, an unfinished character among them


class Detokenizer:
    """Turns ids into text one by one; all that `push` and `flush` return, joined, is the decode of all ids.

    A character may be spread over several tokens ("中" is three bytes): it appears once it is whole.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, skip_special_tokens: bool = True, pieces: dict[int, str] | None = None
    ) -> None:
        """`pieces`: texts of ids that are whole characters, kept here for all with the same tokenizer and options."""
        self._tokenizer = tokenizer
        self._pieces = {} if pieces is None else pieces
        self._skip_special_tokens = skip_special_tokens
        self._pending: list[int] = []  # since the last point where the text ended in a whole character
        self._emitted = 0  # characters of the pending ids' text already handed out

    def push(self, token_id: int) -> str:
        """The text that became certain with this id, possibly none."""
        if not self._pending and (piece := self._pieces.get(token_id)) is not None:
            return piece
        self._pending.append(int(token_id))
        text = self._text()
        emitted = self._emitted
        if not text.endswith(REPLACEMENT):
            if len(self._pending) == 1:
                self._pieces[self._pending[0]] = text
            self._restart()
            return text[emitted:]
        certain = text.rstrip(REPLACEMENT)  # only the run of replacement characters at the end can still change
        self._emitted = len(certain)
        return certain[emitted:]

    def flush(self) -> str:
        """What is left at the end: an unfinished character comes out as U+FFFD, as in a decode of the whole."""
        rest = self._text()[self._emitted :]
        self._restart()
        return rest

    def _text(self) -> str:
        text: str = self._tokenizer.decode(self._pending, skip_special_tokens=self._skip_special_tokens)
        return text

    def _restart(self) -> None:
        self._pending, self._emitted = [], 0


class StopBuffer:
    """Passes text on until a stop string occurs, holding back whatever may yet turn out to begin one.

    The stop string that is complete first wins (the longer one where two end together); neither it nor what follows
    is passed on. The outcome does not depend on how the text was cut into pushes.
    """

    def __init__(self, stop_strings: Sequence[str]):
        """Raises ConfigError for an empty stop string."""
        self._stops = (stop_strings,) if isinstance(stop_strings, str) else tuple(stop_strings)
        if not all(self._stops):
            raise ConfigError("An empty stop string was found; every stop string needs at least one character.")
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """The text that is now certain not to belong to a stop string; "" for ever after a stop."""
        if self.stopped:
            return ""
        if not self._stops:
            return text
        held = self._held + text
        found = [(held.find(stop) + len(stop), -len(stop)) for stop in self._stops if stop in held]
        if found:
            end, length = min(found)
            self._held, self.stopped = "", True
            return held[: end + length]
        keep = max((_overlap(held, stop) for stop in self._stops), default=0)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def flush(self) -> str:
        """What was held back and turned out to be no stop string."""
        rest, self._held = self._held, ""
        return rest


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that is a true beginning of `stop`: ("is a S", "STOP") -> 1."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
