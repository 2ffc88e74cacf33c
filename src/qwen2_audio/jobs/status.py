"""How far a job is, from its folder alone: while it runs, from another terminal, after a kill."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import JobError
from . import progress as progress_file
from .folder import ERRORS, JOB, JOURNAL, PARTS, outcome_of, part_number
from .formats import count_rows

STALE = 120.0  # s after which a run that wrote no progress is taken for gone


@dataclass(frozen=True)
class JobStatus:
    """Counts of a whole job, all shards together."""

    folder: Path
    asked: dict[str, Any]  # the operation and its settings
    model: str
    done: int  # rows with an answer
    failed: int
    total: int | None  # None: not known (yet)
    running: bool
    rate: float | None  # rows a second, of the runs that are running, or of the last ones
    times_real: float | None  # seconds of sound a second
    left: float | None  # s

    def cost(self, price: float, machines: int = 1) -> float | None:
        """Of an hour of sound, where an hour of a machine costs `price`."""
        return price * machines / self.times_real if self.times_real else None

    def to_dict(self) -> dict[str, Any]:
        return {name: str(value) if name == "folder" else value for name, value in vars(self).items()}


def status_of(folder: Path) -> JobStatus:
    """Raises JobError where the folder holds no job."""
    try:
        job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise JobError(f"{folder} holds no job (no {JOB}); expected a job's 'output'.") from error
    except (OSError, ValueError) as error:
        raise JobError(f"{folder / JOB} cannot be read: {error}.") from error
    done, failed = _counts(folder)
    runs, total = progress_file.read(folder)
    now = time.time()
    running = [run for run in runs if not run.finished and now - run.updated < STALE]
    measured = [run for run in running or runs if run.rate]
    rate = sum(run.rate or 0.0 for run in measured) or None
    left = (total - done - failed) / rate if total is not None and rate else None
    return JobStatus(
        folder, job.get("asked", {}), (job.get("model") or {}).get("name", "not loaded yet"), done, failed, total,
        bool(running), rate, sum(run.times_real or 0.0 for run in measured) or None, left,
    )  # fmt: skip


def _counts(folder: Path) -> tuple[int, int]:
    """Answers and errors: of parts that are whole, and in the journals of the others."""
    done = failed = 0
    # Journals first: a part that becomes whole meanwhile is counted there, or as a part, and not at neither place.
    journals = {part_number(path): _bytes_of(path) for path in (folder / JOURNAL).glob("part-*.jsonl")}
    whole = set()
    for path in sorted((folder / PARTS).glob("part-*")):
        if (number := part_number(path)) is not None:
            whole.add(number)
            done += count_rows(path)
    for path in (folder / ERRORS).glob("part-*.jsonl"):
        failed += count_rows(path) if part_number(path) in whole else 0
    for number, lines in journals.items():
        if number not in whole:
            is_error = [_is_error(line) for line in lines.split(b"\n")[:-1]]
            done, failed = done + is_error.count(False), failed + is_error.count(True)
    return done, failed


def _is_error(line: bytes) -> bool | None:
    """Whether an outcome of a journal is an error; None for a damaged line, of which the next run says more."""
    try:
        return outcome_of(line).result is None
    except (ValueError, TypeError):
        return None


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # its part has become whole
        return b""
