"""The processes that read rows ahead: they end with the trainer, survive its signals, and their death is a sentence."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from ..errors import TrainingError

CHECK_SECONDS = 1.0
# Forked, as Python does it up to 3.13: the trainer learns at once that a worker was killed, where it would otherwise
# wait for ever for the rest of a row that was half sent. None: the system's own way.
START_METHOD = "fork" if sys.platform == "linux" else None
_DEATH = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? (?P<pids>[\d, ]+)\)(?: is killed by signal: (?P<signal>[^.]+))?"
)


def start_worker(_: int) -> None:
    """What a worker does first; torch's DataLoader calls it with the worker's number.

    Ctrl-C, and often SIGTERM too, reach all processes at once, and the trainer needs the rows of the step that it
    finishes before it saves: the first SIGTERM only makes the next one end the worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(), os.getppid()), daemon=True).start()


def _end_with(trainer: Any, parent: int) -> None:
    """End this process with the trainer, or once `parent` is not the process above it any more.

    A worker would otherwise outlive a trainer that was killed: it waits for ever to write rows that nobody reads. One
    that was forked may not see the trainer's end, since its siblings hold the same pipe; one that was not may have
    another process above it.
    """
    while trainer.is_alive() and os.getppid() == parent:
        time.sleep(CHECK_SECONDS)
    os._exit(1)


@contextlib.contextmanager
def deaths_named(workers: int) -> Iterator[None]:
    """Inside this context, the end of a worker is a TrainingError in one sentence.

    torch raises a RuntimeError for it from a signal handler, wherever the program is just then.
    """
    try:
        yield
    except RuntimeError as error:
        death = _DEATH.search(str(error))
        if death is None:
            raise
        how = f"was killed (signal: {death['signal']})" if death["signal"] else "ended unexpectedly"
        raise TrainingError(
            f"A process that reads rows ahead ({death['pids']}, one of data.workers = {workers}) {how}; a system that "
            "runs out of memory does that. The last checkpoint is whole: run the same command again to go on, with "
            "fewer workers where memory is short."
        ) from None
