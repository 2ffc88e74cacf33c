"""How far a job is: counted while it runs, written for `job status`, read back."""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..datasets.line_log import replace_file
from ..errors import JobError
from .runner import Outcome

EVERY = 2.0  # s between two writes


@dataclass
class Progress:
    """One run's counts. Rows that were there before count in `before`, not in `done` and `failed`."""

    total: int | None = None  # rows of this shard; None: not counted yet
    before: int = 0  # rows that were done before this run, errors included
    before_failed: int = 0
    done: int = 0
    failed: int = 0
    heard: float = 0.0  # s
    tokens: int = 0
    started: float = 0.0  # time.time()
    first: float | None = None  # time.time() of the first outcome
    updated: float = 0.0
    finished: bool = False  # the run has ended, wherever it got to

    def add(self, outcome: Outcome) -> None:
        now = time.time()
        self.first = self.first or now
        self.updated = now
        if outcome.result is None:
            self.failed += 1
            return
        self.done += 1
        self.heard += outcome.result.get("heard") or 0.0
        self.tokens += (outcome.result.get("usage") or {}).get("completion_tokens") or 0

    @property
    def asked(self) -> int:
        """Rows that this run has asked."""
        return self.done + self.failed

    @property
    def all_done(self) -> int:
        return self.before + self.asked

    @property
    def all_failed(self) -> int:
        return self.before_failed + self.failed

    @property
    def seconds(self) -> float:
        """From the first outcome on: loading the model is no part of the rate."""
        return 0.0 if self.first is None else max(0.0, self.updated - self.first)

    @property
    def rate(self) -> float | None:
        """Rows a second of this run; None where it is too early to say."""
        return (self.asked - 1) / self.seconds if self.asked > 1 and self.seconds > 0 else None

    @property
    def times_real(self) -> float | None:
        """Seconds of sound a second."""
        return self.heard / self.seconds if self.seconds > 0 and self.asked > 1 else None

    @property
    def left(self) -> float | None:
        """Seconds to the end at this rate; None where it is not known."""
        if self.total is None or not self.rate:
            return None
        return max(0, self.total - self.all_done) / self.rate


def file_of(folder: Path, shard: tuple[int, int]) -> Path:
    return folder / f"progress-{shard[0]}-of-{shard[1]}.json"


def write(progress: Progress, path: Path) -> None:
    """Raises JobError."""
    replace_file(path, json.dumps(asdict(progress)).encode() + b"\n", "the rows are kept", JobError)


def read(folder: Path) -> tuple[list[Progress], int | None]:
    """The last run of each shard, and the rows of all shards; None as long as one of them has not counted its own.

    A job that was run with another number of shards has files of those runs, too; only the latest number counts.
    """
    by_shards: dict[int, list[Progress]] = {}
    for path in sorted(folder.glob("progress-*-of-*.json")):
        match = re.fullmatch(r"progress-(\d+)-of-(\d+)", path.stem)
        if match is None:
            continue
        try:
            data: dict[str, Any] = json.loads(path.read_text())
            by_shards.setdefault(int(match[2]), []).append(Progress(**data))
        except (ValueError, TypeError, OSError):  # torn: as if it were not there
            continue
    if not by_shards:
        return [], None
    # A run that found nothing left to do has no outcome, and so no time of one.
    shards = max(by_shards, key=lambda number: max(max(run.updated, run.started) for run in by_shards[number]))
    runs = by_shards[shards]
    totals = [run.total for run in runs if run.total is not None]
    return runs, sum(totals) if len(totals) == shards else None
