"""Rows that could not be used: left out of training, counted, and written down with their reason."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import PromptError
from .lines import append


class BadRow(PromptError):  # noqa: N818 - what it is about, not that it is an error
    """A line of a data file that cannot be trained on, and why."""

    def __init__(self, file: str, line: int, reason: str) -> None:
        super().__init__(file, line, reason)  # all three, so that it survives the way from a worker process
        self.file, self.line, self.reason = file, line, reason

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.reason}"


class Quarantine:
    """The report: a JSONL file with `file`, `line` and `reason`, one entry a bad row however often it comes up.

    An existing report is gone on with, so that a resumed run does not repeat it. Without a path it only counts.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.rows: dict[tuple[str, int], str] = {}
        if path is not None and path.exists():
            text = path.read_text(encoding="utf-8", errors="replace")  # a killed run may have left half a line
            for line in text.split("\n"):
                self._recall(line)
            if text and not text.endswith("\n"):
                with path.open("a", encoding="utf-8") as file:
                    file.write("\n")

    def _recall(self, line: str) -> None:
        try:
            entry = json.loads(line)
            self.rows[entry["file"], entry["line"]] = entry["reason"]
        except (ValueError, KeyError, TypeError):  # cut off: its row will come up again
            return

    def add(self, bad: BadRow) -> None:
        """Write a row down, once."""
        key = (bad.file, bad.line)
        if key in self.rows:
            return
        self.rows[key] = bad.reason
        if self.path is not None:
            append(self.path, {"file": bad.file, "line": bad.line, "reason": bad.reason})

    def __len__(self) -> int:
        return len(self.rows)

    def summary(self) -> str:
        """One line for people; empty when nothing was left out."""
        if not self.rows:
            return ""
        where = "" if self.path is None else f"; the reasons are in {self.path}"
        (file, line), reason = next(iter(self.rows.items()))
        return f"{len(self.rows)} row(s) left out, the first: {file}, line {line}: {reason}{where}"
