"""What the machine can do, measured in a process of its own.

Run as `python -m benchmarks.harness.ceilings_worker THREADS`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from . import ceilings
from .torch_worker import run_torch_worker


class Session:
    """Its one order."""

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def ceilings(self, repeats: int, buffer: int) -> dict[str, Any]:
        return asdict(ceilings.measure(self._threads, repeats=repeats, buffer=buffer))


if __name__ == "__main__":
    run_torch_worker(Session)
