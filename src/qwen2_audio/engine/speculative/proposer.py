"""What proposes draft tokens, and how often its proposals for one answer were right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from ..request import Sequence

MAX_MISSES = 4  # steps in a row whose draft tokens were all wrong


@dataclass
class AcceptanceHistory:
    """How many draft tokens one proposer may propose for one answer."""

    limit: int  # draft tokens a step
    misses: int = 0  # steps in a row whose draft tokens were all wrong

    @property
    def length(self) -> int:
        """Draft tokens of the next step."""
        return self.limit

    def num_to_propose(self, num_generated: int) -> int:
        """Draft tokens to propose after `num_generated` tokens. After MAX_MISSES misses only at every 16th token: text
        that was not predictable rarely becomes so."""
        if self.misses >= MAX_MISSES and num_generated % (4 * MAX_MISSES):
            return 0
        return self.length

    def update(self, num_proposed: int, num_accepted: int) -> None:
        """Of the draft tokens that the model checked, so many were right."""
        self.misses = 0 if num_accepted else self.misses + 1


@dataclass
class DraftHistory(AcceptanceHistory):
    """For a draft model, of which each token costs a pass."""

    next_length: int = 0  # 0: nothing was proposed yet

    @property
    def length(self) -> int:
        return self.next_length or self.limit

    def update(self, num_proposed: int, num_accepted: int) -> None:
        """Next length: accepted + 1, or accepted + 2 if all were accepted; never above the limit."""
        super().update(num_proposed, num_accepted)
        self.next_length = min(num_accepted + (2 if num_accepted == num_proposed else 1), self.limit)


class Proposer(Protocol):
    """Proposes tokens that the model then checks in the step that computes the next token anyway."""

    @property
    def busy(self) -> bool:
        """It has clips to encode."""

    def encode(self, seconds: float) -> None:
        """Encode clips for about `seconds`."""

    def new_history(self) -> AcceptanceHistory: ...

    def propose(self, wanted: Mapping[Sequence, int]) -> None:
        """Put at most so many draft tokens into `draft_token_ids` of each sequence. Sequences with 0 keep what the
        proposer holds for them; those that are not named lose it. Raises nothing."""

    def count(self, num_proposed: int, num_accepted: int) -> None:
        """Add to the metrics."""

    def forget(self, sequence: Sequence) -> None:
        """The answer has ended."""
