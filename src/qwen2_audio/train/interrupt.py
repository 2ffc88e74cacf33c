"""Ctrl-C and SIGTERM during training: the step is finished and a checkpoint written before the run ends."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Which signal asked the run to end; 0: none."""

    def __init__(self) -> None:
        self.signal = 0

    def on_signal(self, number: int, _: FrameType | None) -> None:
        """The handler. A second signal ends the run at once."""
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number

    def end(self) -> None:
        """Raises KeyboardInterrupt after ctrl-C, else SystemExit with a shell's status for the signal."""
        if self.signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt


@contextlib.contextmanager
def signals_noted() -> Iterator[Interruption]:
    """Inside this context the first signal is noted instead of ending the program. Has no effect in other threads."""
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = {number: signal.signal(number, interruption.on_signal) for number in SIGNALS}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
