"""The picture of the engine benchmark: each figure that has a limit, over its limit."""

from __future__ import annotations

from pathlib import Path

from qwen2_audio.bench.report import Report, Row, more_is_better


def save_png(report: Report, path: Path) -> None:
    """Rates by how many run, on the left; on the right how many times better than asked each figure is.

    Needs matplotlib (the `plot` extra).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    rates = by_running(report.rows)
    left.plot(list(rates), list(rates.values()), "o-")
    left.set_xlabel("sequences running")
    left.set_ylabel("tokens/s")
    left.set_ylim(bottom=0)
    times_better = {row.name.removeprefix("engine."): better(row) for row in report.rows if row.limit and row.value}
    colours = ["tab:green" if value >= 1 else "tab:orange" for value in times_better.values()]
    right.barh(list(times_better), list(times_better.values()), color=colours)
    right.axvline(1, color="black", linewidth=1)
    right.invert_yaxis()
    right.set_xlabel("times better than asked")
    left.grid(alpha=0.2)
    figure.suptitle(f"{report.machine['cpu']}, {report.machine['threads']} threads\n{report.machine['checkpoint']}")
    figure.savefig(path, dpi=120)


def by_running(rows: list[Row]) -> dict[int, float]:
    """Sequences running -> tokens a second."""
    decodes = {row.name.removeprefix("engine.decode"): row.value for row in rows if row.unit == "tokens/s"}
    return {int(count): value for count, value in decodes.items() if count.isdigit() and value is not None}


def better(row: Row) -> float:
    """How many times better than its limit a row is."""
    assert row.value and row.limit
    return row.value / row.limit if more_is_better(row.unit) else row.limit / row.value
