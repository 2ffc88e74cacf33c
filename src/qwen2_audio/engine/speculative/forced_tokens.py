"""The tokens of text that a grammar leaves no choice about, such as the next key of a JSON object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..request import Sequence
from .proposer import AcceptanceHistory

if TYPE_CHECKING:
    from ..structured.grammar import AnyMatcher

NUM_TOKENS = 16  # draft tokens a step


class ForcedTokens:
    """A Proposer for the sequences that are held to a grammar. Attribute `matchers`: theirs.

    The text is certain, its division into tokens is the model's: they are draft tokens like any others.
    """

    busy = False

    def __init__(self) -> None:
        self.matchers: dict[Sequence, AnyMatcher] = {}

    def encode(self, seconds: float) -> None:
        """There is nothing to encode."""

    def new_history(self) -> AcceptanceHistory:
        return AcceptanceHistory(NUM_TOKENS)

    def propose(self, wanted: Mapping[Sequence, int]) -> None:
        for sequence, matcher in self.matchers.items():
            if (count := wanted.get(sequence, 0)) > 0:
                sequence.draft_token_ids = matcher.forced_tokens(count)

    def count(self, num_proposed: int, num_accepted: int) -> None:
        """They have no metrics of their own: `usage` tells the answer's tokens, and the steps tell the passes."""

    def forget(self, sequence: Sequence) -> None:
        self.matchers.pop(sequence, None)
