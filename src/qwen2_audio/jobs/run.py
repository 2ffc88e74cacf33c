"""The driver of a job: from the corpus through a runner into the folder. Whatever stops it, the same command goes on.

corpus -> rows that have no outcome -> runner -> outcomes -> journal -> a part, when it is whole
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..datasets.corpus import Corpus, open_corpus
from ..errors import ConfigError, DatasetError, JobError, Qwen2AudioError
from . import progress as progress_file
from .config import JobConfig
from .folder import JobFolder, OpenPart
from .formats import count_rows, read_rows
from .identity import JobFile, identity_of
from .operations import columns_of, decisive, operation_of
from .process_runner import InProcesses
from .progress import Progress
from .retry import reopen
from .runner import MODEL_WORKER, About, InThisProcess, JobRow, Outcome, Runner, Work

Tell = Callable[[str], None]
FIRST_ERRORS = 5  # errors that a summary names


@dataclass(frozen=True)
class JobSummary:
    """How a run ended.

    progress: its counts, and those of the runs before. errors: the first few, as (id, sentence). stopped: why it did
    not reach the end, "" where it did. output: the job's folder.
    """

    output: Path
    progress: Progress
    errors: tuple[tuple[str, str], ...] = ()
    stopped: str = ""

    @property
    def exit_status(self) -> int:
        """0: every row is answered; 1: some failed, or it stopped at `max_errors`."""
        return 1 if self.stopped or self.progress.all_failed else 0

    def to_dict(self) -> dict[str, Any]:
        progress = self.progress
        return {
            "output": str(self.output), "answered": progress.all_done - progress.all_failed,
            "failed": progress.all_failed, "there_already": progress.before, "heard_seconds": round(progress.heard, 3),
            "tokens": progress.tokens, "rows_per_second": progress.rate, "times_real": progress.times_real,
            "errors": [{"id": name, "error": sentence} for name, sentence in self.errors], "stopped": self.stopped,
        }  # fmt: skip


@dataclass
class Job:
    """A job that can be run. `tell` gets a sentence at a time; `advance` the counts, after every row."""

    config: JobConfig
    runner: Runner | None = None  # None: by config.workers
    factory: str = MODEL_WORKER
    options: Mapping[str, Any] = field(default_factory=dict)  # of another factory
    retry: bool = False  # first take up the rows that failed before
    tell: Tell = lambda _: None
    advance: Callable[[Progress], None] = lambda _: None

    def run(self) -> JobSummary:
        """Ask every row of this shard that has no outcome yet.

        Raises ConfigError, DatasetError, WeightsError: it cannot start; JobError: another job's folder, a full disk,
        workers that do not live. All outcomes so far are kept.
        """
        config = self.config
        _, kind = operation_of(config)
        corpus = open_corpus(config.input)
        first = next(corpus.rows(unique=False), None)
        if first is None:
            raise DatasetError(f"{config.input} has no rows; expected at least one clip.")
        kind.check(config, first)
        folder = JobFolder(Path(config.output), config.format, columns_of(decisive(config)))
        _check_place(config, corpus)
        folder.make()
        with folder.locked(config.shard_numbers):
            job_file = JobFile(folder.path)
            job_file.enter(identity_of(config, corpus))
            if self.retry:
                reopen(folder, config.rows_per_part, config.shard_numbers)
            with _Run(self, corpus, folder, job_file) as run:
                return run.to_end()


def _check_place(config: JobConfig, corpus: Corpus) -> None:
    """Raises ConfigError for an output whose files would be taken for the corpus when the job goes on."""
    place, output = Path(config.input), Path(config.output).resolve()
    if not isinstance(corpus.path, Path) or not place.is_dir():
        return
    is_inside = config.format == "parquet" and place.resolve() in output.parents
    if is_inside or output == place.resolve():
        raise ConfigError(
            f"output {config.output!r} lies in input {config.input!r}, whose clips are looked for where the answers "
            "would lie; name a folder outside."
        )


def _start(job: Job, rows: Iterator[JobRow], ready: Callable[[About], None]) -> Generator[Outcome, None, None]:
    """The job's runner at work."""
    runner = job.runner
    if runner is None:
        runner = InProcesses(job.config.workers) if job.config.workers else InThisProcess()
    return runner.run(Work(job.config, job.factory, job.options), rows, ready)


class _Run:
    """One run of a job, in its locked folder."""

    def __init__(self, job: Job, corpus: Corpus, folder: JobFolder, job_file: JobFile) -> None:
        self.job, self.corpus, self.folder, self.job_file = job, corpus, folder, job_file
        self.progress = Progress(started=time.time())
        self.errors: list[tuple[str, str]] = []
        self._open: dict[int, OpenPart] = {}
        self._done = folder.done()
        self._written = 0.0  # time.monotonic() of the last progress file
        self._told = False  # what the model's notes are
        self._count_before()

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *_: object) -> None:
        for part in self._open.values():
            part.close()
        self.progress.finished = True
        with contextlib.suppress(JobError):  # a full disk was said already
            self._write_progress()

    def to_end(self) -> JobSummary:
        """Ask what is left. Closing the runner's iterator ends its workers."""
        job, stopped = self.job, ""
        rows = self._rows()
        first = next(rows, None)  # no worker is started where nothing is left to do
        if first is not None:
            threading.Thread(target=self._count, daemon=True).start()
            outcomes = _start(job, _chained(first, rows), self._ready)
            with contextlib.closing(outcomes):
                for outcome in outcomes:
                    self._keep(outcome)
                    if job.config.max_errors is not None and self.progress.all_failed > job.config.max_errors:
                        stopped = self._stopped()
                        break
        if not stopped:
            self._finish_parts()
            self.progress.total = self.progress.all_done
        return JobSummary(self.folder.path, self.progress, tuple(self.errors), stopped)

    def _stopped(self) -> str:
        count, most = self.progress.all_failed, self.job.config.max_errors
        return f"It stopped because {count} {'row' if count == 1 else 'rows'} failed, more than max_errors = {most}."

    # -- rows

    def _rows(self) -> Iterator[JobRow]:
        """The rows of this shard that have no outcome; parts are opened as the reading reaches them."""
        config = self.job.config
        number_of_shard, shards = config.shard_numbers
        part: OpenPart | None = None
        for number, row in enumerate(self.corpus.rows(unique=False)):
            if config.limit is not None and number >= config.limit:
                break
            place = number // config.rows_per_part
            if place in self._done or place % shards != number_of_shard - 1:
                continue
            if part is None or part.number != place:
                if part is not None:
                    self._is_read(part)
                part = self._open[place] = self.folder.open_part(place)
            item = JobRow(number, row)
            part.rows.append(item)
            known = part.outcomes.get(number)
            if known is None:
                yield item
            else:
                self._note_before(known, row.id)
        if part is not None:
            self._is_read(part)

    def _is_read(self, part: OpenPart) -> None:
        part.is_read = True
        self._finish_if_whole(part)

    def _note_before(self, outcome: Outcome, name: str) -> None:
        self.progress.before += 1
        if outcome.result is None:
            self.progress.before_failed += 1
            self._note_error(name, outcome.error)

    def _note_error(self, name: str, sentence: str | None) -> None:
        if len(self.errors) < FIRST_ERRORS:
            self.errors.append((name, sentence or ""))

    # -- outcomes

    def _ready(self, about: About) -> None:
        self.job_file.check_model(about)
        for note in () if self._told else about.notes:
            self.job.tell(note)
        self._told = True

    def _keep(self, outcome: Outcome) -> None:
        part = self._open[outcome.number // self.job.config.rows_per_part]
        part.add(outcome)
        self.progress.add(outcome)
        if outcome.result is None:
            row = next(item.row for item in part.rows if item.number == outcome.number)
            self._note_error(row.id, outcome.error)
        self._finish_if_whole(part)
        self.job.advance(self.progress)
        if time.monotonic() - self._written > progress_file.EVERY:
            self._write_progress()

    def _finish_if_whole(self, part: OpenPart) -> None:
        if part.is_whole:
            part.finish()
            del self._open[part.number]
            self._done.add(part.number)

    def _finish_parts(self) -> None:
        missing = [part.number for part in self._open.values()]
        if missing:
            raise JobError(f"The runner ended, and rows of part {missing[0]} have no outcome; run the command again.")

    # -- counts

    def _count_before(self) -> None:
        number_of_shard, shards = self.job.config.shard_numbers
        for number in sorted(self._done):
            if number % shards != number_of_shard - 1:
                continue
            self.folder.journal(number).unlink(missing_ok=True)  # of a kill between the part and this
            failed = self.folder.errors(number)
            num_failed = count_rows(failed) if failed.exists() else 0
            if num_failed and len(self.errors) < FIRST_ERRORS:
                for row in read_rows(failed):
                    self._note_error(str(row["id"]), row["error"])
            self.progress.before += count_rows(self.folder.part(number)) + num_failed
            self.progress.before_failed += num_failed

    def _count(self) -> None:
        """The rows of the shard, on a thread of its own: the first answers do not wait for it."""
        config = self.job.config
        try:
            rows = self.corpus.count()
        except (Qwen2AudioError, OSError):  # the reading of the rows says it, too, with the place
            return
        if rows is None:
            return
        rows = min(rows, config.limit or rows)
        number_of_shard, shards = config.shard_numbers
        whole, rest = divmod(rows, config.rows_per_part)
        mine = len(range(number_of_shard - 1, whole, shards)) * config.rows_per_part
        self.progress.total = mine + (rest if whole % shards == number_of_shard - 1 else 0)

    def _write_progress(self) -> None:
        self._written = time.monotonic()
        progress_file.write(self.progress, progress_file.file_of(self.folder.path, self.job.config.shard_numbers))


def _chained(first: JobRow, rest: Iterator[JobRow]) -> Iterator[JobRow]:
    yield first
    yield from rest


def run_job(
    job: str | Path | Mapping[str, Any],
    changes: Mapping[str, Any] | None = None,
    *,
    runner: Runner | None = None,
    tell: Tell = lambda _: None,
    advance: Callable[[Progress], None] = lambda _: None,
) -> JobSummary:
    """Run a job over a corpus, or go on with it.

    Args:
        job: a TOML file, or a mapping of its keys: {"model": "nano", "input": "clips/", "output": "out", "ask": "..."}.
        changes: values by key, "sampling.temperature" for example, that take the place of the job's.
        runner: where rows are answered; None: in `workers` processes of this machine.
        tell: gets a sentence for people at a time. advance: gets the counts after every row.

    Raises:
        ConfigError: a key that is unknown, missing or cannot work.
        DatasetError: the input cannot be read.
        WeightsError, CapacityError: the model cannot be loaded.
        JobError: the output holds another job, is being written by another run, or cannot be written; workers die
            before they answer anything. What was answered is kept, and the same call goes on.
    """
    if not isinstance(job, (str, Path, Mapping)):
        raise ConfigError(f"run_job() got {type(job).__name__}; expected a TOML file's path, or a mapping of its keys.")
    return Job(JobConfig.of(job, changes), runner, tell=tell, advance=advance).run()
