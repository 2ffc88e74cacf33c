"""What a runner is: it hands the rows of a job to workers wherever they are, and hands back one outcome for each.

The driver (`run.py`) reads the corpus, keeps what comes back, and knows nothing of processes or machines. A worker
holds a loaded checkpoint and answers rows. A runner stands between the two, and has these duties:

1. It makes workers by `make_worker(work, number)`, in another process or on another machine. `Work`, `JobRow` and
   `Outcome` can be pickled, and need nothing there but this package and access to the clips.
2. It calls `ready(worker.about)` here for each worker that is loaded. That raises JobError where the worker has another
   model than the rows before; the runner lets it pass, and ends its workers. So it does with the errors of loading.
3. It takes rows from `rows` only as fast as its workers need them: `worker.about.window` rows are with a worker at a
   time at most. So nothing piles up, whatever the corpus.
4. It yields exactly one Outcome for every row that it took, in any order, as soon as it is there.
5. Where a worker dies, another takes its place, and the rows that were with it are asked again: `suspects.Suspects`
   says which, how many at a time, and when a row is given up. What was answered before is not asked again.
6. Closing the iterator ends the workers at once. Rows that were with them have no outcome; the next run asks them.

`Worker.answer` may be called by several threads at a time (a Ray actor with several calls in flight): the calls share
one engine.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

from ..datasets.row import Row
from .config import JobConfig

MODEL_WORKER = "qwen2_audio.jobs.model_worker:ModelWorker"


@dataclass(frozen=True)
class JobRow:
    """A row of the corpus, and its number there, from 0. A number is one row's only: it names the row in a job."""

    number: int
    row: Row


@dataclass(frozen=True)
class Outcome:
    """What became of a row: the columns that the answer adds, or why there is none."""

    number: int
    result: Mapping[str, Any] | None = None
    error: str | None = None  # one sentence
    kind: str = ""  # of the error: AudioError, say, or "killed its worker"


@dataclass(frozen=True)
class Work:
    """What a worker is made of. `factory` is "module:class", called as `factory(work, number)`."""

    config: JobConfig
    factory: str = MODEL_WORKER
    options: Mapping[str, Any] = field(default_factory=dict)  # of another factory than ours: of a test's


@dataclass(frozen=True)
class About:
    """What a worker says of itself once it is loaded."""

    fingerprint: str  # of the weights, and of what else decides an answer
    model: str  # for people
    settings: Mapping[str, str] = field(default_factory=dict)  # dtype, quantisation: part of the fingerprint
    notes: tuple[str, ...] = ()  # sentences for people
    window: int = 64  # rows that it wants with it: enough to keep its engine full


class Worker(Protocol):
    """A loaded checkpoint that answers rows."""

    @property
    def about(self) -> About: ...

    def answer(self, rows: Iterable[JobRow | None]) -> Iterator[Outcome]:
        """One outcome for each row, in any order, while later rows are read ahead.

        None in `rows` says that there is no row at present: the worker goes on with those that it has. An exception is
        the worker's end, as its death: nothing that is one row's fault raises.
        """

    def close(self) -> None: ...


class Runner(Protocol):
    """See the module."""

    def run(
        self, work: Work, rows: Iterator[JobRow], ready: Callable[[About], None]
    ) -> Generator[Outcome, None, None]: ...


def make_worker(work: Work, number: int) -> Worker:
    """The worker that `work` describes, loaded. `number`, from 0, tells the workers of a machine apart (which GPU).

    Raises ConfigError, WeightsError, CapacityError as `load` does.
    """
    module, _, name = work.factory.partition(":")
    worker: Worker = getattr(import_module(module), name)(work, number)
    return worker


class InThisProcess:
    """The runner of one worker in the driver's own process (`workers = 0`): nothing survives a clip that crashes it."""

    def run(self, work: Work, rows: Iterator[JobRow], ready: Callable[[About], None]) -> Generator[Outcome, None, None]:
        worker = make_worker(work, 0)
        try:
            ready(worker.about)
            yield from worker.answer(rows)
        finally:
            worker.close()
