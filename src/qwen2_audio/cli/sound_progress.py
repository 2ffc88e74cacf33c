"""Progress in seconds of sound: one line on a terminal, nothing in a pipe."""

from __future__ import annotations

import sys
import time

from ..longform.questions.wording import clock

_EVERY = 0.2  # s between two lines


class SoundProgress:
    """A line on stderr that is written over, as long as the context lasts."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._shown = not quiet and sys.stderr.isatty()
        self._source: str | None = None
        self._started = self._last = 0.0
        self._written = False

    def __enter__(self) -> SoundProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.pause()

    def show(self, name: str, position: float, seconds: float | None) -> None:
        """`position` seconds of a sound are done, of `seconds` if that is known."""
        now = time.monotonic()
        if name != self._source:
            self._source, self._started, self._last = name, now, 0.0
        if self._shown and now - self._last >= _EVERY:
            self._last, self._written = now, True
            print(f"\r\033[K{line(name, position, seconds, now - self._started)}", end="", file=sys.stderr, flush=True)

    def pause(self) -> None:
        """Wipe the line, because other text follows."""
        if self._written:
            self._written = False
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def line(name: str, position: float, seconds: float | None, elapsed: float) -> str:
    """The line for `position` of `seconds` of a sound after `elapsed` seconds of work."""
    short = name if len(name) <= 40 else f"...{name[-37:]}"
    if not seconds or seconds < position:
        return f"{short}: {clock(position)}"
    text = f"{short}: {clock(position)} of {clock(seconds)}"
    if elapsed < 1 or position <= 0:
        return text
    speed = position / elapsed
    return f"{text}, {speed:.1f} times as fast as it is, {clock((seconds - position) / speed)} left"
