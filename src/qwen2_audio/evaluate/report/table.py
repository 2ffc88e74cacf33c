"""The table of a run in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .figures import Figure, distance_text, figures_of, shown, signs_of, unit

HEAD = ("", "rows", "value", "95 % interval", "published")


def table_lines(scores: Mapping[str, Any]) -> list[str]:
    """Plain text, a line a figure; what went wrong behind each task's figures."""
    rows: list[tuple[str, ...]] = [HEAD]
    behind: dict[int, list[str]] = {}
    for scored in scores["tasks"].values():
        for figure in figures_of(scored):
            rows.append(_row(figure))
        behind[len(rows) - 1] = [*signs_of(scored), scored["signature"]]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = []
    for number, row in enumerate(rows):
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:4], widths[1:], strict=True)),
            row[4],
        ]
        lines.append("  ".join(cells).rstrip())
        lines += [f"  {text}" for text in behind.get(number, [])]
        if number in behind and number < len(rows) - 1:
            lines.append("")
    return lines


def _row(figure: Figure) -> tuple[str, ...]:
    name = figure.part or figure.task
    label = f"    {figure.name}" if figure.minor else f"  {name}" if figure.part else f"{name}, {figure.name}"
    between = ""
    if figure.low is not None and figure.high is not None:
        between = f"{shown(figure.metric, figure.low)} to {shown(figure.metric, figure.high)}"
    published = "; ".join(
        f"{one.by} {shown(figure.metric, one.value)} ({distance_text(one, figure.metric)})" for one in figure.published
    )
    return label, str(figure.n), f"{shown(figure.metric, figure.value)}{unit(figure.metric)}", between, published
