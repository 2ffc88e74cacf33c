"""The picture of `bench load`: what happened over time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .load import LoadReport, SentRequest
from .report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def save_png(report: Report, path: Path) -> None:
    """Each request at the time it was sent: first token and end above, how many were open below.

    Needs matplotlib (the `plot` extra).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    assert isinstance(report, LoadReport)
    figure = Figure(figsize=(10, 6), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    _latencies(above, report.requests)
    times, counts = open_at(report.requests)
    below.step(times, counts, where="post", color="black", linewidth=1)
    below.set_ylabel("open requests")
    below.set_xlabel("seconds")
    figure.suptitle(f"{report.machine['checkpoint']}\n{report.machine['dtype']}")
    for axes in (above, below):
        axes.grid(which="both", alpha=0.2)
    figure.savefig(path, dpi=120)


def open_at(requests: list[SentRequest]) -> tuple[list[float], list[int]]:
    """Times at which a request was sent or ended, and how many were open from then on."""
    changes = sorted([(request.sent, 1) for request in requests] + [(request.ended, -1) for request in requests])
    times, counts = [0.0], [0]
    for when, change in changes:
        times.append(when)
        counts.append(counts[-1] + change)
    return times, counts


def _latencies(axes: Axes, requests: list[SentRequest]) -> None:
    answered = [request for request in requests if request.error is None and request.pieces]
    failed = [request for request in requests if request.error is not None]
    sent = [request.sent for request in answered]
    axes.plot(sent, [request.first_token or 0 for request in answered], "o", label="first token")
    axes.plot(sent, [request.ended - request.sent for request in answered], "^", label="end", alpha=0.6)
    if failed:
        seconds = [request.ended - request.sent for request in failed]
        axes.plot([request.sent for request in failed], seconds, "x", color="red", label="error")
    axes.set_yscale("log")
    axes.set_ylabel("seconds after sending")
    axes.legend(fontsize="small")
