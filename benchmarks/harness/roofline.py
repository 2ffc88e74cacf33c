"""The picture: how much arithmetic each byte read is used for, how fast that went, and how fast it can go here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen2_audio.bench.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = {"fma": "fp32 multiply-adds", "int8": "8-bit multiply-adds"}
MARKERS = "osD^vP*X<>"


def save_png(report: Report, path: Path) -> None:
    """Draw `report.roofline`: its `ceilings` (`read` in GB/s, `fma` and `int8` in GOP/s) as lines, its `points`
    (`name`, `intensity` in operations a byte, `gops`) as marks, one kind for what comes before the name's last dot.

    Needs matplotlib (the `plot` extra).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ceilings, points = report.roofline["ceilings"], report.roofline["points"]
    figure = Figure(figsize=(10, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    intensities = [point["intensity"] for point in points] or [1.0]
    left, right = min(intensities) / 3, max(*intensities, *(ceilings[name] / ceilings["read"] for name in ceilings)) * 3
    for name, label in NAMES.items():
        if name in ceilings:
            _roof(axes, left, right, ceilings, name, label)
    for mark, (group, members) in enumerate(_groups(points).items()):
        axes.loglog(
            [point["intensity"] for point in members],
            [point["gops"] for point in members],
            MARKERS[mark % len(MARKERS)],
            label=group,
            alpha=0.8,
        )
    axes.set_xlabel("operations for each byte read")
    axes.set_ylabel("GOP/s")
    axes.set_title(f"{report.machine['cpu']}, {report.machine['threads']} threads\n{report.machine['checkpoint']}")
    axes.grid(which="both", alpha=0.2)
    axes.legend(fontsize="small", loc="lower right")
    figure.savefig(path, dpi=120)


def _roof(axes: Axes, left: float, right: float, ceilings: dict[str, float], name: str, label: str) -> None:
    """Up along the memory's line, then flat."""
    flat, read = ceilings[name], ceilings["read"]
    axes.loglog(
        [left, flat / read, right],
        [left * read, flat, flat],
        color="black",
        linestyle="-" if name == "int8" else "--",
        linewidth=1,
        label=f"{label}: {flat:.0f} GOP/s, memory: {read:.1f} GB/s",
    )


def _groups(points: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for point in points:
        groups.setdefault(point["name"].rpartition(".")[0] or point["name"], []).append(point)
    return groups
