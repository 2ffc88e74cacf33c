"""How many positions take about so long on this machine, learnt from what passes took. Plain numbers."""

from __future__ import annotations

FEWEST, MOST = 32, 1024  # positions


class Pace:
    """Attribute `tokens`: positions of a pass that takes about `seconds`, or always `fixed`."""

    def __init__(self, seconds: float, fixed: int | None = None) -> None:
        self.tokens = fixed or 128
        self._seconds, self._learns = seconds, fixed is None

    def learn(self, positions: int, took: float) -> None:
        """A pass of so many positions took so many seconds. Small ones tell nothing."""
        if self._learns and positions >= FEWEST:
            wanted = positions * self._seconds / took
            self.tokens = round(min(max(0.5 * (self.tokens + wanted), FEWEST), MOST))
