"""Prompt lookup: propose the tokens that followed the newest ones earlier in the same text."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile

from ...generate.lookup import propose_tokens
from ..metrics import Stats
from ..request import Sequence
from .proposer import AcceptanceHistory

LONGEST_MATCH = 3  # tokens that must have occurred before


class PromptLookup:
    """A Proposer that needs no model. It finds quotes and transcripts of what the prompt says."""

    busy = False

    def __init__(self, num_tokens: int, stats: Stats) -> None:
        self._num_tokens, self._stats = num_tokens, stats

    def encode(self, seconds: float) -> None:
        """There is nothing to encode."""

    def new_history(self) -> AcceptanceHistory:
        return AcceptanceHistory(self._num_tokens)

    def propose(self, wanted: Mapping[Sequence, int]) -> None:
        for sequence, count in wanted.items():
            if count > 0:
                found = propose_tokens(sequence.prefix_keys, count, LONGEST_MATCH, [])
                sequence.draft_token_ids = list(takewhile(lambda key: key >= 0, found))  # no token stands for a clip

    def count(self, num_proposed: int, num_accepted: int) -> None:
        self._stats.lookup_tokens_proposed += num_proposed
        self._stats.lookup_tokens_accepted += num_accepted

    def forget(self, sequence: Sequence) -> None:
        """Nothing is held for an answer."""
