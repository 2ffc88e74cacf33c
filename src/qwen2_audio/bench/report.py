"""Rows of a benchmark: as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One figure. `ratio` above 1 always means that ours is better, whatever the unit."""

    name: str
    value: float | None  # ours: median; None where it is not known
    unit: str
    peer: float | None = None  # theirs: median; None without a peer
    ratio: float | None = None
    limit: float | None = None  # what the value must reach, or stay under; None: no limit
    spread: tuple[float, float] | None = None  # ours: smallest and largest
    peer_spread: tuple[float, float] | None = None
    note: str = ""  # whether both sides computed the same, or the share of what the machine can do
    ratio_limit: float | None = None  # the ratio expected at least; None: no expectation

    @property
    def missed(self) -> bool:
        """Whether the value or the ratio falls short of its limit."""
        value_missed = False
        if self.value is not None and self.limit is not None:
            value_missed = self.value < self.limit if more_is_better(self.unit) else self.value > self.limit
        return value_missed or (
            self.ratio is not None and self.ratio_limit is not None and self.ratio < self.ratio_limit
        )


@dataclass(frozen=True)
class Report:
    """A whole run."""

    machine: dict[str, Any]
    rows: list[Row]
    profile: list[dict[str, Any]] = field(default_factory=list)  # our stages; empty unless measured
    roofline: dict[str, Any] = field(default_factory=dict)  # `ceilings` and `points`, see `roofline`

    def to_json(self) -> str:
        data = {"machine": self.machine, "rows": [asdict(row) for row in self.rows]}
        for name, part in (("profile", self.profile), ("roofline", self.roofline)):
            if part:
                data[name] = part
        return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def more_is_better(unit: str) -> bool:
    """Rates, gains and shares of what is right are better when larger; seconds, bytes, errors and overheads when
    smaller."""
    return unit.endswith("/s") or unit in ("x faster", "x the rate", "% right")


def table(report: Report) -> Table:
    """The rows for a terminal."""
    from rich.table import Table

    machine, peer = report.machine, report.machine.get("peer")
    against = f" against {peer}" if peer else ""
    caption = "Medians, half the range in percent."
    columns: dict[str, Callable[[Row], str]] = {"ours": lambda row: cell(row.value, row.unit, row.spread)}
    if any(map(_limit, report.rows)):
        caption += " limit is what is asked for (x: as a ratio), ! falls short of it."
        columns["limit"] = _limit
    if any(row.peer is not None for row in report.rows):
        caption += " A ratio above 1 always means that ours is better."
        columns["peer"] = lambda row: cell(row.peer, row.unit, row.peer_spread)
    if any(row.ratio is not None for row in report.rows):
        columns["ratio"] = lambda row: "" if row.ratio is None else f"{row.ratio:.2f}"
    out = Table(
        title=f"qwen2-audio {machine['ours']}{against}\n{machine['checkpoint']}, {machine['dtype']}, "
        f"{machine['cpu']}, {machine['threads']} threads, torch {machine['torch']}",
        caption=caption,
    )
    out.add_column("what", no_wrap=True)
    for name in columns:
        out.add_column(name, justify="right", no_wrap=True)
    out.add_column("note")
    for row in report.rows:
        cells = [text(row) for text in columns.values()]
        out.add_row(row.name, *cells, row.note, style="yellow" if row.missed else None)
    return out


def line_of(row: Row) -> str:
    """A row by itself: its name, value and note."""
    return "  ".join(filter(None, (row.name, cell(row.value, row.unit, row.spread) or "not known", row.note)))


def _limit(row: Row) -> str:
    limits = [] if row.limit is None else [f"{row.limit:g}"]
    if row.ratio_limit is not None:
        limits.append(f"{row.ratio_limit:g}x")
    return ", ".join(limits) + (" !" if row.missed else "")


def profile_table(format_name: str, stages: Sequence[dict[str, Any]]) -> Table:
    """The stages of one of our formats for a terminal."""
    from rich.table import Table

    out = Table(title=f"Where our time goes, {format_name}")
    for name in ("stage", "ms", "share", "rate", ""):
        out.add_column(name, justify="right" if name in ("ms", "share", "rate") else "left")
    for stage in stages:
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
    half_range = "" if spread is None or not value else f" ±{(spread[1] - spread[0]) / 2 / value:.0%}"
    return f"{value * scale:.3g} {unit}{half_range}"
