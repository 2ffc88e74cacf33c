"""An answer that is free until it says a trigger, and then held to a grammar until that is complete; again and again.

The grammar begins with the trigger. A token may hold text before it, as " <" does before "tool_call>": so the grammar
is told the text from the trigger on byte by byte, which it takes however it is divided into tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .grammar import Matcher


class TriggeredMatcher:
    """How far one answer has come. It has the methods of Matcher."""

    def __init__(
        self,
        trigger: str,
        start: Matcher,
        token_bytes: Sequence[bytes],
        byte_tokens: Sequence[int],
        *,
        once: bool = False,
    ) -> None:
        """`start`: the beginning of the grammar; `token_bytes`: the text of each token id, of a control token what no
        text has; `byte_tokens`: the token of each byte; `once`: nothing follows the grammar's text."""
        self.finished = False  # a free answer may end anywhere, and takes what comes
        self._trigger, self._start = trigger.encode(), start
        self._token_bytes, self._byte_tokens, self._once = token_bytes, byte_tokens, once
        self._inner: Matcher | None = None  # where the answer is held
        self._recent: list[int] = []  # tokens in which the trigger may have begun

    @property
    def free(self) -> bool:
        """Any token may come."""
        return self._inner is None

    def copy(self) -> TriggeredMatcher:
        trigger, once = self._trigger.decode(), self._once
        copied = TriggeredMatcher(trigger, self._start, self._token_bytes, self._byte_tokens, once=once)
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
            if self._inner.complete and not self._once:
                self._inner = None
            return
        self._recent.append(token)
        text = b"".join(self._token_bytes[one] for one in self._recent)
        start = text.find(self._trigger)
        if start >= 0:
            self._inner, self._recent = self._held(text[start:]), []
        else:
            while len(text) - len(self._token_bytes[self._recent[0]]) >= len(self._trigger):
                text = text[len(self._token_bytes[self._recent.pop(0)]) :]

    def _held(self, text: bytes) -> Matcher | None:
        """The grammar behind `text`, which begins with the trigger; None where it does not fit: then the trigger was
        just text."""
        matcher, tokens = self._start.copy(), [self._byte_tokens[byte] for byte in text]
        if matcher.num_accepted(tokens) < len(tokens):
            return None
        for token in tokens:
            matcher.advance(token)
        return None if matcher.complete and not self._once else matcher
