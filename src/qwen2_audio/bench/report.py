"""Rows of a benchmark: as a table, as JSON, as a picture."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One figure. `ratio` above 1 always means that ours is better, whatever the unit."""

    name: str
    value: float | None  # ours: median; None where this machine does not tell
    unit: str
    peer: float | None = None  # theirs: median; None without a peer
    ratio: float | None = None
    limit: float | None = None  # the ratio that is expected at least; None: no expectation
    spread: tuple[float, float] | None = None  # ours: smallest and largest
    peer_spread: tuple[float, float] | None = None
    note: str = ""  # whether both sides computed the same

    @property
    def missed(self) -> bool:
        return self.ratio is not None and self.limit is not None and self.ratio < self.limit


@dataclass(frozen=True)
class Report:
    """A whole run."""

    machine: dict[str, Any]
    rows: list[Row]
    profile: list[dict[str, Any]] = field(default_factory=list)  # our stages; empty unless asked for

    def to_json(self) -> str:
        data = {"machine": self.machine, "rows": [asdict(row) for row in self.rows]}
        if self.profile:
            data["profile"] = self.profile
        return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def table(report: Report) -> Table:
    """The rows for a terminal."""
    from rich.table import Table

    machine, peer = report.machine, report.machine.get("peer")
    against = f" against {peer}" if peer else ""
    out = Table(
        title=f"qwen2-audio {machine['ours']}{against}\n{machine['checkpoint']}, {machine['dtype']}, "
        f"{machine['cpu']}, {machine['threads']} threads, torch {machine['torch']}",
        caption="Medians, half the range in percent. A ratio above 1 always means that ours is better; "
        "limit is the ratio expected at least, ! falls short of it.",
    )
    out.add_column("measurement", no_wrap=True)
    for name in ("ours", "peer", "ratio", "limit"):
        out.add_column(name, justify="right", no_wrap=True)
    out.add_column("result")
    for row in report.rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}{' !' if row.missed else ''}"
        out.add_row(
            row.name,
            cell(row.value, row.unit, row.spread),
            cell(row.peer, row.unit, row.peer_spread),
            ratio,
            "" if row.limit is None else f"{row.limit:g}",
            row.note,
            style="yellow" if row.missed else None,
        )
    return out


def profile_table(report: Report) -> Table:
    """Our stages for a terminal."""
    from rich.table import Table

    out = Table(title="Where our time goes")
    for name in ("stage", "ms", "share", "rate", ""):
        out.add_column(name, justify="right" if name in ("ms", "share", "rate") else "left")
    for stage in report.profile:
        share, rate = stage["share"], stage["rate"]
        out.add_row(
            stage["stage"],
            "" if stage["ms"] is None else f"{stage['ms']:.2f}",
            "" if share is None else f"{share:.0%}",
            "" if rate is None else f"{rate:.1f}",
            stage["unit"],
        )
    return out


def cell(value: float | None, unit: str, spread: tuple[float, float] | None) -> str:
    """`1.23 s ±4%`; seconds below a tenth as ms."""
    if value is None:
        return ""
    scale, unit = (1000, "ms") if unit == "s" and value < 0.1 else (1, unit)
    between = "" if spread is None else f" ±{(spread[1] - spread[0]) / 2 / value:.0%}"
    return f"{value * scale:.3g} {unit}{between}"


def save_png(report: Report, path: Path) -> None:
    """Bars of the ratios, a line at 1, the limits as ticks. Needs matplotlib (the `plot` extra)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for row in reversed(report.rows) if row.ratio is not None]
    figure = Figure(figsize=(8, 0.4 * len(rows) + 1.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    ratios = [row.ratio or 0.0 for row in rows]
    bars = axes.barh([row.name for row in rows], ratios, color=["#c44" if row.missed else "#38a" for row in rows])
    axes.bar_label(bars, labels=[f"{ratio:.2f}x" for ratio in ratios], padding=4)
    for place, row in enumerate(rows):
        if row.limit is not None:
            axes.plot([row.limit, row.limit], [place - 0.4, place + 0.4], color="black", linewidth=1.5)
    axes.axvline(1.0, color="grey", linewidth=0.8, linestyle="--")
    axes.margins(x=0.12)
    axes.set_xlabel(f"times better than {report.machine.get('peer')} (black: expected at least)")
    axes.set_title(f"{report.machine['cpu']}, {report.machine['threads']} threads, {report.machine['dtype']}")
    figure.savefig(path, dpi=120)
