"""Rows that cannot be used: they are left out of training, counted, and reported with the reason."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import PromptError
from .lines import append


class BadRow(PromptError):  # noqa: N818 - it is also what a reader yields in the place of an example
    """A line of a data file that cannot be trained on, with the reason."""

    def __init__(self, file: str, line: int, reason: str) -> None:
        super().__init__(file, line, reason)  # all three, so that it can be pickled in a worker process
        self.file, self.line, self.reason = file, line, reason

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.reason}"


class Quarantine:
    """The report: a JSONL file with `file`, `line` and `reason`, one entry per bad row, however often it is read.

    An existing report is continued, so that a resumed run repeats no entry. Without a path, rows are only counted.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.rows: dict[tuple[str, int], str] = {}
        if path is not None and path.exists():
            text = path.read_text(encoding="utf-8", errors="replace")  # a killed run may have written half a line
            for line in text.split("\n"):
                self._read_line(line)
            if text and not text.endswith("\n"):
                with path.open("a", encoding="utf-8") as file:
                    file.write("\n")

    def _read_line(self, line: str) -> None:
        try:
            entry = json.loads(line)
            self.rows[entry["file"], entry["line"]] = entry["reason"]
        except (ValueError, KeyError, TypeError):  # incomplete: its row will be read again
            return

    def add(self, bad: BadRow) -> None:
        """Report a row, unless it is reported already. Raises TrainingError where the file cannot be written."""
        key = (bad.file, bad.line)
        if key in self.rows:
            return
        self.rows[key] = bad.reason
        if self.path is not None:
            append(self.path, {"file": bad.file, "line": bad.line, "reason": bad.reason})

    def __len__(self) -> int:
        return len(self.rows)

    def summary(self) -> str:
        """One sentence on the rows that were left out; empty where there are none."""
        if not self.rows:
            return ""
        where = "" if self.path is None else f"; the reasons are in {self.path}"
        (file, line), reason = next(iter(self.rows.items()))
        return f"{len(self.rows)} row(s) left out, the first: {file}, line {line}: {reason}{where}"
