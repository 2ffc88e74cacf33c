"""Which of the rows that were with a worker when it died has killed it.

Nobody knows at first. The rows are asked again, an eighth as many together as before, until one that is alone with a
worker kills it: that is a strike. A row is given up after two strikes where the process crashed (a segmentation fault),
and after three where it was killed by a signal from outside, which may have been meant for anything: by the system
for lack of memory, or by a person. Rows that are answered are free of suspicion.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from .runner import JobRow, Outcome

STRIKES_CRASHED, STRIKES_KILLED = 2, 3
SHRINK = 8
KIND = "killed its worker"


@dataclass(eq=False)
class Suspect:
    """A row, how many it may be asked together with, and how often it killed a worker while it was alone with it."""

    row: JobRow
    together: int
    strikes: int = 0


@dataclass
class Suspects:
    """The rows under suspicion. `died` adds to them, `take` hands them out again."""

    _waiting: deque[Suspect] = field(default_factory=deque)
    _asked: dict[int, Suspect] = field(default_factory=dict)  # handed out, by number

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def died(self, rows: Iterable[JobRow], *, crashed: bool, how: str) -> list[Outcome]:
        """A worker died with `rows` unanswered. Returns the outcomes of those that are given up.

        crashed: by a fault of its own. how: for people, "signal 11 (SIGSEGV)".
        """
        rows = list(rows)
        given_up = []
        for row in rows:
            doubted = self._asked.pop(row.number, None) or Suspect(row, 0)
            doubted.together = max(1, len(rows) // SHRINK)
            doubted.strikes += len(rows) == 1
            if doubted.strikes >= (STRIKES_CRASHED if crashed else STRIKES_KILLED):
                sentence = f"It killed its worker {doubted.strikes} times while it was alone with it, by {how}."
                given_up.append(Outcome(row.number, error=sentence, kind=KIND))
            else:
                self._waiting.append(doubted)
        return given_up

    def take(self) -> list[JobRow]:
        """The next rows to ask together, and nothing else with them; empty: none is waiting."""
        taken: list[JobRow] = []
        while self._waiting and len(taken) < self._waiting[0].together:
            if taken and self._waiting[0].together != self._asked[taken[0].number].together:
                break
            doubted = self._waiting.popleft()
            self._asked[doubted.row.number] = doubted
            taken.append(doubted.row)
        return taken

    def answered(self, number: int) -> None:
        """A row has its outcome."""
        self._asked.pop(number, None)
