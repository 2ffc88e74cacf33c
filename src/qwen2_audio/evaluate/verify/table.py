"""The table of `qwen2-audio verify`: one row a check, its figure beside the largest one that is in bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "OUT OF BOUNDS", "not here"]
COLUMNS = ("check", "of", "figure", "bound", "", "state")


class NotHere(Exception):  # noqa: N818 - no error: a sentence on why a check is not possible
    """A check that this checkpoint or machine does not allow; the message says why."""


@dataclass(frozen=True)
class Row:
    """One check. A figure is a distance: 0 is equal."""

    part: str  # checkpoint, machine, reference
    check: str  # what is compared
    subject: str  # with which model
    figure: float | None  # None: not possible here
    bound: float  # the largest figure that is in bounds
    unit: str
    note: str = ""

    @property
    def state(self) -> State:
        if self.figure is None:
            return "not here"
        return "ok" if self.figure <= self.bound else "OUT OF BOUNDS"  # NaN is out of them

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object, in which a figure that is no finite number is a text."""
        figure = self.figure
        return {
            **asdict(self),
            "figure": figure if figure is None or math.isfinite(figure) else str(figure),
            "state": self.state,
        }


@dataclass(frozen=True)
class Check:
    """What a row is called, and what is in bounds."""

    part: str
    name: str
    bound: float
    unit: str = "of the largest"  # value that it should have been

    def row(self, subject: str, measure: Callable[[], float | tuple[float, str]]) -> Row:
        """The row with what `measure` returns: the figure, or the figure and a note.

        An exception is a row as well, out of bounds: whatever fails here, the other checks are still worth having.
        """
        figure: float | None = math.inf
        try:
            found = measure()
            figure, note = found if isinstance(found, tuple) else (found, "")
        except NotHere as reason:
            figure, note = None, str(reason)
        except Exception as error:
            note = f"{type(error).__name__}: {error}"
        return Row(self.part, self.name, subject, figure, self.bound, self.unit, " ".join(note.split()))


@dataclass(frozen=True)
class Report:
    """All rows, and what they were measured on."""

    about: dict[str, str]
    rows: Sequence[Row]

    @property
    def passed(self) -> bool:
        return not any(row.state == "OUT OF BOUNDS" for row in self.rows)

    @property
    def verdict(self) -> str:
        """One sentence."""
        bad, missing = (sum(row.state == state for row in self.rows) for state in ("OUT OF BOUNDS", "not here"))
        done = len(self.rows) - missing
        absent = f"; {missing} not possible here" if missing else ""
        return f"{done - bad} of {done} checks in bounds{absent}{'' if self.passed else f'; {bad} OUT OF BOUNDS'}"

    def to_dict(self) -> dict[str, Any]:
        """As the JSON object of `--json`."""
        return {"about": self.about, "passed": self.passed, "rows": [row.to_dict() for row in self.rows]}

    def text(self) -> str:
        """The table as text of fixed width, to be read and to be pasted into a report."""
        width = max(map(len, self.about), default=0) + 2
        lines = [f"{name:<{width}}{value}" for name, value in self.about.items()]
        cells = [COLUMNS, *(_cells(row) for row in self.rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(COLUMNS))]
        for part in dict.fromkeys(row.part for row in self.rows):
            lines += ["", part]
            for row, texts in zip(self.rows, cells[1:], strict=True):
                if row.part == part:
                    lines += [_line(texts, widths), *([f"      {row.note}"] if row.note else [])]
        lines.insert(len(self.about) + 1, _line(COLUMNS, widths))
        return "\n".join([*lines, "", self.verdict])


def _cells(row: Row) -> tuple[str, ...]:
    figure = "" if row.figure is None else f"{row.figure:.3g}"
    return (row.check, row.subject, figure, f"{row.bound:.3g}", row.unit, row.state)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    aligned = [
        f"{cell:>{width}}" if column in (2, 3) else f"{cell:<{width}}"
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return ("  " + "  ".join(aligned)).rstrip()
