"""An answer that is free until it says a trigger, and then held to a grammar until that is complete; again and again.

The grammar begins with the trigger. A token may hold text before it, as " <" does before "tool_call>": then the grammar
that is compiled has that text in front.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .grammar import Matcher


class TriggeredMatcher:
    """How far one answer has come. It has the methods of Matcher."""

    def __init__(self, trigger: str, make: Callable[[str], Matcher], token_bytes: Sequence[bytes]) -> None:
        """`make`: a matcher at the beginning of a text that goes on with the grammar; `token_bytes`: the text of each
        token id, of a control token what no text has."""
        self.finished = False  # a free answer may end anywhere, and takes what comes
        self._trigger, self._make, self._token_bytes = trigger.encode(), make, token_bytes
        self._inner: Matcher | None = None  # where the answer is held
        self._recent: list[int] = []  # tokens in which the trigger may have begun

    @property
    def free(self) -> bool:
        """Any token may come."""
        return self._inner is None

    def copy(self) -> TriggeredMatcher:
        copied = TriggeredMatcher(self._trigger.decode(), self._make, self._token_bytes)
        copied._inner = None if self._inner is None else self._inner.copy()
        copied._recent = list(self._recent)
        return copied

    def accepts(self, token: int) -> bool:
        return self._inner is None or self._inner.accepts(token)

    def num_accepted(self, tokens: Sequence[int]) -> int:
        """At least so many of `tokens` fit: what follows a call's end is not looked at."""
        return len(tokens) if self._inner is None else self._inner.num_accepted(tokens)

    def allowed(self) -> np.ndarray:
        if self._inner is None:
            return np.ones(len(self._token_bytes), dtype=np.bool_)
        return self._inner.allowed()

    def forced_tokens(self, most: int) -> list[int]:
        return [] if self._inner is None else self._inner.forced_tokens(most)

    def advance(self, token: int) -> None:
        if self._inner is not None:
            self._inner.advance(token)
            if self._inner.complete:
                self._inner = None
            return
        self._recent.append(token)
        text = b"".join(self._token_bytes[one] for one in self._recent)
        start = text.find(self._trigger)
        if start >= 0:
            self._inner, self._recent = self._held(start), []
        else:
            while len(text) - len(self._token_bytes[self._recent[0]]) >= len(self._trigger):
                text = text[len(self._token_bytes[self._recent.pop(0)]) :]

    def _held(self, start: int) -> Matcher | None:
        """The grammar behind the recent tokens, in whose text the trigger begins at byte `start`; None where they do
        not fit it: then the trigger was just text."""
        tokens, end = list(self._recent), 0
        while end + len(self._token_bytes[tokens[0]]) <= start:
            end += len(self._token_bytes[tokens.pop(0)])
        before = self._token_bytes[tokens[0]][: start - end]
        try:
            matcher = self._make(before.decode())
        except UnicodeDecodeError:  # the end of a character that began in another token
            return None
        if matcher.num_accepted(tokens) < len(tokens):
            return None
        for token in tokens:
            matcher.advance(token)
        return None if matcher.complete else matcher
