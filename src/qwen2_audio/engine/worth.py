"""Whether a draft's guesses pay, by what steps with and without them have achieved. Plain numbers.

A step that checks guesses computes several positions for each answer. One answer alone waits for memory and gets them
almost free, many together wait for arithmetic and pay for each; where that turns depends on the machine, the draft and
what is said. So both ways are measured, for each number of answers that decode together.
"""

from __future__ import annotations

from dataclasses import dataclass, field

RUN = 8  # steps in a row of the way that is tried; the first of them has catching up to do, and does not count
FIRST, LAST = 64, 1024  # steps between two tries, more each time that a try changes nothing
MEMORY = 8  # steps, about, that are remembered: how many guesses are right varies from one to the next


@dataclass
class _Way:
    """Tokens a second, of late."""

    tokens: float = 0.0
    seconds: float = 0.0
    steps: int = 0

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds

    def add(self, tokens: int, seconds: float) -> None:
        self.steps = min(self.steps + 1, MEMORY)
        self.tokens += (tokens - self.tokens) / self.steps
        self.seconds += (seconds - self.seconds) / self.steps


@dataclass
class _Case:
    """One number of answers. Begins with guesses, then tries it without."""

    ways: dict[bool, _Way] = field(default_factory=lambda: {True: _Way(), False: _Way()})
    better: bool = True  # with guesses
    wait: int = FIRST
    tried: bool = True  # the way that is tried now, for `left` more steps
    left: int = RUN
    since: int = 0  # steps since the last try

    @property
    def way(self) -> bool:
        return self.tried if self.left else self.better

    def add(self, way: bool, tokens: int, seconds: float) -> None:
        trying = self.left > 0
        if way != self.way:
            return
        if not trying or self.left < RUN:
            self.ways[way].add(tokens, seconds)
        if trying:
            self.left -= 1
            if not self.left:
                self._judge()
            return
        self.since += 1
        if self.since >= self.wait:
            self.tried, self.left, self.since = not self.better, RUN, 0

    def _judge(self) -> None:
        if not self.ways[False].steps:  # the beginning
            self.tried, self.left = False, RUN
            return
        better = self.ways[True].rate > self.ways[False].rate
        self.wait = min(2 * self.wait, LAST) if better == self.better else FIRST
        self.better = better


class Worth:
    """Which way the next step goes."""

    def __init__(self) -> None:
        self._cases: dict[int, _Case] = {}

    def pays(self, decoding: int) -> bool:
        """Whether to guess now that so many answers decode."""
        return self._cases.setdefault(decoding, _Case()).way

    def add(self, decoding: int, guessed: bool, tokens: int, seconds: float) -> None:
        """A step in which so many answers did nothing but decode gave so many tokens."""
        self._cases.setdefault(decoding, _Case()).add(guessed, tokens, seconds)
