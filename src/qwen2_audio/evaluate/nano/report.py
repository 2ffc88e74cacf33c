"""The result of nano's examination: a table, report.json with every wrong answer, a plot of the sounds it confuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .sounds.kinds import NAMED
from .tally import Row, Tally


@dataclass(frozen=True)
class Report:
    """What was written into a folder."""

    rows: list[Row]
    plot: Path | None  # confusion.png; None where matplotlib is not installed

    @property
    def met(self) -> bool:
        """No bar is missed."""
        return all(row.get("met", True) for row in self.rows)

    def lines(self) -> Iterator[str]:
        """The table as text."""
        for row in self.rows:
            bar = f"bar {row['bar']:.0%}, {'met' if row['met'] else 'NOT met'}" if "bar" in row else ""
            earlier = f"before DPO {row['before_dpo']:.1%}" if "before_dpo" in row else ""
            yield f"{row['name']:38s} {row['value']:7.1%}  n={row['n']:<5d} {bar:22s} {earlier}"


def write_report(tally: Tally, before: Tally | None, folder: Path) -> Report:
    """Write report.json into `folder` and, where matplotlib is installed, confusion.png.

    `before`: the answers of another checkpoint, for a second column.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows, earlier = tally.rows(), {row["name"]: row["value"] for row in before.rows()} if before else {}
    for row in rows:
        if row["name"] in earlier:
            row["before_dpo"] = earlier[row["name"]]
    data = {"rows": rows, "wrong": tally.wrong}
    (folder / "report.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return Report(rows, plot_confusion(tally.confusion, folder / "confusion.png"))


def plot_confusion(confusion: npt.NDArray[np.int64], path: Path) -> Path | None:
    """A matrix of counts, [kind that was played, kind that was named], as a picture in `path`.

    Returns `path`, or None where matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(8, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.imshow(confusion, cmap="Blues")
    axes.set_xticks(range(len(NAMED) + 1), [*NAMED, "(none, or several)"], rotation=90)
    axes.set_yticks(range(len(NAMED)), NAMED)
    for (i, j), count in np.ndenumerate(confusion):
        if count:
            axes.text(j, i, str(count), ha="center", va="center", fontsize=7, color="white" if i == j else "black")
    axes.set(xlabel="nano said", ylabel="it was")
    figure.savefig(path, dpi=90)
    return path
