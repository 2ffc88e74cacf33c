"""How many replicas a corpus needs by a deadline, from a measurement on one."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

from ..datasets.corpus import open_corpus
from ..errors import ConfigError, JobError
from .config import JobConfig
from .operations import operation_of
from .runner import JobRow, Work, make_worker

EFFICIENCY = 0.85  # of a replica among many, compared with one alone
ASSUMPTIONS = (
    "The corpus is as the rows that were measured: as long clips, as long answers, as fast to read.",
    "Replicas do not wait for each other, and each is as fast as the one that was measured.",
    f"{1 - EFFICIENCY:.0%} are lost: clips that take longer at the end, machines that are lost, slower storage.",
    "Each replica loads the model once.",
)


@dataclass(frozen=True)
class Measurement:
    """One replica on the job's own rows."""

    load_seconds: float
    seconds: float  # of answering, from the first answer on
    rows: int
    failed: int
    heard: float  # s of sound

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds

    @property
    def times_real(self) -> float:
        """Seconds of sound a second."""
        return self.heard / self.seconds


@dataclass(frozen=True)
class Plan:
    """What a corpus of `hours` of sound takes. `cost`: where an hour of a replica has a price."""

    hours: float
    deadline_hours: float
    replicas: int
    replica_hours: float
    cost: float | None


def measure(config: JobConfig, seconds: float = 60.0) -> Measurement:
    """Answer the job's first rows for `seconds`, and keep nothing. Raises as `run_job`; JobError where no row was
    answered in time."""
    operation_of(config)
    corpus, started = open_corpus(config.input), time.monotonic()
    worker = make_worker(Work(config), 0)
    try:
        loaded = time.monotonic()
        first: float | None = None
        last, rows, failed, heard = loaded, 0, 0, 0.0

        def until_then() -> Iterator[JobRow]:
            for number, row in enumerate(corpus.rows(unique=False)):
                if time.monotonic() - (first or loaded) > seconds:
                    return
                yield JobRow(number, row)

        for outcome in worker.answer(until_then()):
            last = time.monotonic()
            if first is None:
                first = last  # what came before it filled the engine
                continue
            if last - first > seconds:
                break
            rows += 1
            failed += outcome.result is None
            heard += (outcome.result or {}).get("heard") or 0.0
    finally:
        worker.close()
    if first is None or not rows or not heard:
        raise JobError(
            f"{rows} rows with {heard:g} s of sound were answered in {seconds:g} s, and {failed} failed: too few to "
            "plan by; give more --seconds, or repair the first rows."
        )
    return Measurement(loaded - started, last - first, rows, failed, heard)


def plan(measured: Measurement, hours: float, deadline_hours: float, price: float | None = None) -> Plan:
    """Replicas for `hours` of sound in `deadline_hours`, by ASSUMPTIONS. `price`: of a replica's hour.

    replicas = ceil(hours / (times_real * EFFICIENCY) / (deadline - loading))
    Raises ConfigError for a deadline that loading the model alone would miss.
    """
    if hours <= 0 or deadline_hours <= 0:
        raise ConfigError(f"--hours is {hours:g} and --deadline {deadline_hours:g}; expected hours, above 0.")
    left = deadline_hours - measured.load_seconds / 3600
    if left <= 0:
        raise ConfigError(
            f"The deadline is {deadline_hours * 3600:.0f} s away, and loading takes {measured.load_seconds:.0f} s."
        )
    work = hours / (measured.times_real * EFFICIENCY)  # hours of one replica
    replicas = math.ceil(work / left)
    replica_hours = work + replicas * measured.load_seconds / 3600
    return Plan(hours, deadline_hours, replicas, replica_hours, None if price is None else price * replica_hours)
