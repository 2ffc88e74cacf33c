"""A job's folder.

    job.json                    whose answers these are: the list of clips, the settings, the model
    parts/part-00000.jsonl      the answers of rows 0 to 255, whole; there is none as long as one of them is missing
    errors/part-00000.jsonl     those of them that failed, with the reason; there is none where none did
    journal/part-00000.jsonl    outcomes of a part that is not whole yet; it goes when the part is written
    progress-1-of-1.json        for people and `job status`: how fast

A part is done when its file in parts/ is there. Files are written whole or not at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..datasets.line_log import LineLog, json_line, parse_lines, replace_file
from ..errors import JobError
from .formats import Format, to_bytes, to_jsonl
from .records import ERROR, MODEL, record_of
from .runner import JobRow, Outcome

JOB, PARTS, ERRORS, JOURNAL = "job.json", "parts", "errors", "journal"
_KEPT = "the rows before it are kept"


class JobFolder:
    """The files of a job. Raises JobError, in one sentence, where one cannot be written: a full disk, say."""

    def __init__(self, path: Path, format: Format, kinds: Mapping[str, str]) -> None:
        """`kinds`: the columns that the operation adds to a row, by kind."""
        self.path, self.format = path, format
        self.kinds = {**kinds, **MODEL}

    def make(self) -> None:
        try:
            for name in (PARTS, ERRORS, JOURNAL):
                (self.path / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JobError(f"{self.path} cannot be made: {error.strerror}; name another 'output'.") from error

    @contextlib.contextmanager
    def locked(self, shard: tuple[int, int]) -> Iterator[None]:
        """Only one run at a time writes a shard. Raises JobError where another does."""
        path = self.path / f".lock-{shard[0]}-of-{shard[1]}"
        with _writable(path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise JobError(
                    f"Another run writes into {self.path}; wait for it, or name another 'output'."
                ) from error
            except OSError:
                pass  # a file system without locks
            yield

    def part(self, number: int) -> Path:
        return self.path / PARTS / f"part-{number:05}.{self.format}"

    def errors(self, number: int) -> Path:
        return self.path / ERRORS / f"part-{number:05}.jsonl"

    def journal(self, number: int) -> Path:
        return self.path / JOURNAL / f"part-{number:05}.jsonl"

    def done(self) -> set[int]:
        """The parts that are whole."""
        return {number for path in (self.path / PARTS).glob("part-*") if (number := part_number(path)) is not None}

    def journals(self) -> set[int]:
        """The parts that have a journal."""
        paths = (self.path / JOURNAL).glob("part-*")
        return {number for path in paths if (number := part_number(path)) is not None}

    def open_part(self, number: int) -> OpenPart:
        return OpenPart(self, number)

    def write_part(self, number: int, rows: Sequence[JobRow], outcomes: Mapping[int, Outcome]) -> tuple[int, int]:
        """Write a part of which every row has its outcome. Returns its answers and its errors."""
        pairs = [(item.row, outcomes[item.number]) for item in sorted(rows, key=lambda item: item.number)]
        answers = [record_of(row, outcome, self.kinds) for row, outcome in pairs if outcome.result is not None]
        errors = [record_of(row, outcome, ERROR) for row, outcome in pairs if outcome.result is None]
        if errors:
            replace_file(self.errors(number), to_jsonl(errors), _KEPT, JobError)
        else:
            self.errors(number).unlink(missing_ok=True)
        replace_file(self.part(number), to_bytes(answers, self.format, self.kinds), _KEPT, JobError)
        return len(answers), len(errors)


class OpenPart:
    """A part that is being answered: its rows so far, and their outcomes, which are in its journal."""

    def __init__(self, folder: JobFolder, number: int) -> None:
        """Raises JobError where its journal cannot be opened, or another run writes into it."""
        self.number = number
        self._folder, self._log = folder, LineLog(folder.journal(number), JobError)
        self.rows: list[JobRow] = []
        self.outcomes = {
            outcome.number: outcome
            for outcome in parse_lines(self._log.lines, self._log.path, outcome_of, "outcome", JobError)
        }
        self.is_read = False  # all its rows are in `rows`

    def add(self, outcome: Outcome) -> None:
        """Journal an outcome."""
        if outcome.number not in self.outcomes:
            self._log.add(
                json_line({name: value for name, value in asdict(outcome).items() if value not in (None, "")})
            )
            self.outcomes[outcome.number] = outcome

    @property
    def is_whole(self) -> bool:
        return self.is_read and all(item.number in self.outcomes for item in self.rows)

    def finish(self) -> tuple[int, int]:
        """Write the part, and drop its journal. Returns its answers and its errors."""
        counts = self._folder.write_part(self.number, self.rows, self.outcomes)
        self._log.path.unlink(missing_ok=True)
        self._log.close()
        return counts

    def close(self) -> None:
        self._log.close()


def part_number(path: Path) -> int | None:
    match = re.fullmatch(r"part-(\d{5,})", path.stem)
    return None if match is None or path.suffix not in (".jsonl", ".parquet") else int(match[1])


def outcome_of(line: bytes) -> Outcome:
    """An outcome from its line of a journal."""
    return Outcome(**json.loads(line))


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[Any]:
    try:
        file = path.open("ab")
    except OSError as error:
        raise JobError(f"{path} cannot be written: {error.strerror}; name another 'output'.") from error
    with file:
        yield file
