"""Jobs with a worker that has no model, and what they leave in their folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.jobs.stub_worker import FACTORY
from qwen2_audio.jobs.config import JobConfig
from qwen2_audio.jobs.run import Job, JobSummary


class StubJob:
    """A job of `rows` (columns by row) in `folder`; `run` runs it, and `lines` reads what it wrote."""

    def __init__(self, folder: Path, rows: list[dict[str, Any]], **keys: Any) -> None:
        self.folder, self.output = folder, folder / keys.pop("output", "out")
        self.input = folder / "rows.jsonl"
        self.input.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.keys = {
            "input": str(self.input), "output": str(self.output), "ask": "What is it?", "rows_per_part": 8,
            "workers": 0, **keys,
        }  # fmt: skip

    def run(self, *, retry: bool = False, options: dict[str, Any] | None = None, **keys: Any) -> JobSummary:
        config = JobConfig.of({**self.keys, **keys})
        return Job(config, factory=FACTORY, options=options or {}, retry=retry).run()

    def lines(self, place: str) -> dict[str, list[dict[str, Any]]]:
        """The rows of the files in parts/, errors/ or journal/, by the file's name."""
        return {
            path.name: [json.loads(line) for line in path.read_bytes().splitlines()]
            for path in sorted((self.output / place).glob("part-*"))
        }

    def ids(self) -> list[str]:
        """Of all rows that are there, in order."""
        both = [*self.lines("parts").values(), *self.lines("errors").values()]
        return sorted((row["id"] for rows in both for row in rows), key=lambda name: int(name.rpartition("-")[2]))

    def bytes(self) -> dict[str, bytes]:
        """All files of rows."""
        paths = [path for place in ("parts", "errors", "journal") for path in (self.output / place).glob("*")]
        return {path.relative_to(self.output).as_posix(): path.read_bytes() for path in paths}


def rows_of(count: int, **by_number: dict[str, Any]) -> list[dict[str, Any]]:
    """`count` rows; `n3={"do": "fail"}` adds columns to row 3."""
    return [
        {
            "id": f"row-{number}",
            "audio": f"https://nowhere/{number}.wav",
            "n": number,
            **by_number.get(f"n{number}", {}),
        }
        for number in range(count)
    ]


@pytest.fixture
def stub_job(tmp_path: Path):
    def make(count: int = 20, *, do: dict[int, str] | None = None, **keys: Any) -> StubJob:
        faults = {f"n{number}": {"do": what} for number, what in (do or {}).items()}
        return StubJob(tmp_path, rows_of(count, **faults), **keys)

    return make
