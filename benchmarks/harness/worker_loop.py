"""What runs in a worker process: orders come in as JSON lines, a reply goes out for each.

    {"op": "encode", "seconds": 3}  ->  {"value": 0.41, "check": [0.1234, -0.5, ...]}

No torch in here: a peer's worker may run in an environment that has none.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

SETTLE_SECONDS = 0.02  # until the other process's threads have stopped spinning


class Timer:
    """What a timed block took."""

    seconds = 0.0


def settle() -> None:
    """Collect garbage, and let the other process fall asleep."""
    gc.collect()
    time.sleep(SETTLE_SECONDS)


@contextmanager
def timed() -> Iterator[Timer]:
    """Seconds of the block, after `settle`."""
    settle()
    timer = Timer()
    start = time.perf_counter()
    yield timer
    timer.seconds = time.perf_counter() - start


def serve(session: Any, orders: IO[str], replies: IO[str]) -> None:
    """Call the session's method of each order's name until the orders end.

    An error becomes a reply, and the orders go on: the driver raises it.
    """
    for line in orders:
        order = json.loads(line)
        try:
            reply = getattr(session, order.pop("op"))(**order)
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def stdout_for_replies() -> IO[str]:
    """The stream of replies: the real stdout. Whatever else is printed goes to stderr from now on."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    sys.stdout.flush()
    os.dup2(2, 1)
    return replies
