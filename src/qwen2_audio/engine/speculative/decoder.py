"""What sequences are guessed to say next: by what the text said before, else by a draft. The engine checks it.

A guess costs a position of the step that checks it, and a draft's own work; so who was wrong is asked less.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile

from ...generate.lookup import propose_tokens
from ..metrics import Stats
from ..request import Sequence
from ..scheduler import Plan
from ..settings import EngineSettings
from ..worth import Worth
from .draft_model import Draft

MISSES = 4  # steps of wrong guesses in a row
LONGEST = 3  # tokens that the text must have said before


@dataclass
class _Trust:
    """How much one source of guesses is asked about one sequence."""

    most: int  # guesses
    missed: int = 0  # steps in a row whose guesses were all wrong
    count: int = 0  # guesses worth making; 0: as many as may be

    def allows(self, said: int) -> int:
        """Guesses to make now that so many tokens were said. After some misses only now and then: text that does not
        repeat stays so."""
        if self.missed >= MISSES and said % (4 * MISSES):
            return 0
        return self.count or self.most

    def judge(self, made: int, right: int) -> None:
        self.missed = 0 if right else self.missed + 1


@dataclass
class _DraftTrust(_Trust):
    """Of a draft each guess costs a pass: no more than were right last time, and one; two where all were."""

    def judge(self, made: int, right: int) -> None:
        super().judge(made, right)
        self.count = min(right + (2 if right == made else 1), self.most)


class Guesses:
    """Asks prompt lookup and a draft, and keeps count of who was right."""

    def __init__(self, settings: EngineSettings, stats: Stats, draft: Draft | None) -> None:
        self._lookup, self._count = settings.lookup, settings.draft_tokens
        self._draft, self._stats = draft, stats
        self._trusted: dict[Sequence, tuple[_Trust, _DraftTrust]] = {}
        self._drafted: set[Sequence] = set()  # those whose guesses are the draft's
        self._worth = Worth()
        self._started, self._decoding, self._tokens = 0.0, 0, 0  # of the step under way
        self._guessed = self._alone = False  # the draft guessed; and nothing but that was going on

    def make(self, sequences: Iterable[Sequence]) -> None:
        """Guesses for those of a step that decode."""
        if not self._lookup and self._draft is None:
            return
        self._started, self._tokens = time.monotonic(), 0
        decoding = [one for one in sequences if one.decoding]
        self._decoding = len(decoding)
        unknown = [one for one in decoding if not self._look_up(one)]
        if self._draft is not None:
            self._ask(self._draft, decoding, unknown)

    def judge(self, sequence: Sequence, made: int, right: int) -> None:
        """Of the guesses that were computed so many were right, with one more token behind them."""
        self._tokens += right + 1
        if not made:
            return
        stats, drafted = self._stats, sequence in self._drafted
        self._drafted.discard(sequence)
        self._trust(sequence)[drafted].judge(made, right)
        if drafted:
            stats.draft_guesses_made += made
            stats.draft_guesses_accepted += right
        else:
            stats.guesses_made += made
            stats.guesses_accepted += right

    def measure(self, plan: Plan) -> None:
        """The step that began with `make` is over."""
        if self._draft is not None and self._alone and self._decoding and not plan.prefills:
            self._worth.add(self._decoding, self._guessed, self._tokens, time.monotonic() - self._started)

    def forget(self, sequence: Sequence) -> None:
        """It has ended."""
        self._trusted.pop(sequence, None)
        self._drafted.discard(sequence)
        if self._draft is not None:
            self._draft.forget(sequence)

    def hear(self, seconds: float) -> None:
        """What the draft has to hear, for about `seconds`."""
        if self._draft is not None and self._draft.busy:
            self._draft.hear(seconds)

    # -- inside

    def _trust(self, sequence: Sequence) -> tuple[_Trust, _DraftTrust]:
        if sequence not in self._trusted:
            self._trusted[sequence] = _Trust(self._lookup), _DraftTrust(self._count)
        return self._trusted[sequence]

    def _look_up(self, sequence: Sequence) -> bool:
        count = min(self._trust(sequence)[0].allows(_said(sequence)), _room(sequence))
        found = propose_tokens(sequence.keys, count, LONGEST, []) if count > 0 else []
        sequence.guesses = list(takewhile(lambda key: key >= 0, found))  # a sound cannot be said
        return bool(sequence.guesses)

    def _ask(self, draft: Draft, decoding: list[Sequence], unknown: list[Sequence]) -> None:
        pays = self._worth.pays(len(decoding))
        wanted = dict.fromkeys(decoding, 0)  # they keep their place in the draft's cache
        for one in unknown if pays else ():
            wanted[one] = min(self._trust(one)[1].allows(_said(one)), _room(one))
        draft.guess(wanted)
        self._drafted = {one for one in unknown if one.guesses}
        self._guessed = bool(self._drafted)
        asked = sum(count > 0 for count in wanted.values())
        self._alone = len(unknown) == len(decoding) and asked == len(self._drafted)


def _said(sequence: Sequence) -> int:
    return len(sequence.keys) - len(sequence.request.keys)


def _room(sequence: Sequence) -> int:
    """Tokens that may come and are not the last: that one is drawn anyway."""
    return sequence.request.most - _said(sequence) - 1
