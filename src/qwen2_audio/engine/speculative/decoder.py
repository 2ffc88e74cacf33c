"""Speculative decoding: proposers are asked for draft tokens in turn, and trusted as far as they were right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Proposers
from typing import TYPE_CHECKING

from ..request import Sequence
from .proposer import AcceptanceHistory, Proposer

if TYPE_CHECKING:
    from ..structured.grammar import AnyMatcher


class SpeculativeDecoder:
    """Asks the first proposer; for the answers that it has nothing for, the next one."""

    def __init__(self, proposers: Proposers[Proposer], matchers: Mapping[Sequence, AnyMatcher] | None = None) -> None:
        """`matchers`: of the sequences that are held to a grammar, which draft tokens must fit."""
        self._proposers = proposers
        self._matchers: Mapping[Sequence, AnyMatcher] = {} if matchers is None else matchers
        self._histories: dict[Sequence, list[AcceptanceHistory]] = {}  # one for each proposer
        self._source: dict[Sequence, int] = {}  # which proposer the draft tokens of a sequence are from

    def propose(self, sequences: Iterable[Sequence]) -> None:
        """Put draft tokens into `draft_token_ids` of the sequences that decode."""
        decoding = [sequence for sequence in sequences if sequence.decoding]
        for sequence in decoding:
            sequence.draft_token_ids = []
        for index, proposer in enumerate(self._proposers):
            without = [sequence for sequence in decoding if not sequence.draft_token_ids]
            wanted = dict.fromkeys(decoding, 0)
            for sequence in without:
                allowed = self._history(sequence)[index].num_to_propose(sequence.num_generated)
                # The last token that may come needs no draft: it is sampled anyway.
                wanted[sequence] = min(allowed, sequence.request.max_new_tokens - sequence.num_generated - 1)
            proposer.propose(wanted)
            for sequence in without:
                if (matcher := self._matchers.get(sequence)) is not None and sequence.draft_token_ids:
                    del sequence.draft_token_ids[matcher.num_accepted(sequence.draft_token_ids) :]
            self._source |= {sequence: index for sequence in without if sequence.draft_token_ids}

    def update(self, sequence: Sequence, num_proposed: int, num_accepted: int) -> None:
        """The model checked the draft tokens of a sequence, and so many were right."""
        index = self._source.pop(sequence, None)
        if num_proposed and index is not None:
            self._history(sequence)[index].update(num_proposed, num_accepted)
            self._proposers[index].count(num_proposed, num_accepted)

    def forget(self, sequence: Sequence) -> None:
        """The answer has ended."""
        self._histories.pop(sequence, None)
        self._source.pop(sequence, None)
        for proposer in self._proposers:
            proposer.forget(sequence)

    def encode(self, seconds: float) -> None:
        """Let proposers encode their clips for about `seconds`."""
        for proposer in self._proposers:
            if proposer.busy:
                proposer.encode(seconds)

    def _history(self, sequence: Sequence) -> list[AcceptanceHistory]:
        if sequence not in self._histories:
            self._histories[sequence] = [proposer.new_history() for proposer in self._proposers]
        return self._histories[sequence]
