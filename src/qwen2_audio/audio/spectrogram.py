"""Draw log-mel spectrograms, the model's view of sound, as PNG files."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np

from ..errors import AudioError, ConfigError
from .mel import MEL_HOP
from .resample import SAMPLE_RATE


def save_png(log_mel: np.ndarray, path: str | PathLike[str], *, seconds: float, title: str = "") -> None:
    """Draw the first `seconds` of log_mel, float [mel, F], into a PNG file: x time in s, y mel band, bright is loud.

    Raises:
        ConfigError: matplotlib is not installed.
        AudioError: `seconds` is 0 or more than the log-mel holds, or the file cannot be written.
    """
    if log_mel.ndim != 2 or not 0 < seconds <= log_mel.shape[1] * MEL_HOP / SAMPLE_RATE:
        raise AudioError(
            f"Found a log-mel of shape {log_mel.shape} for {seconds:g} s; "
            "expected [mel bands, frames] with 100 frames for every second."
        )
    figure, canvas = matplotlib_canvas(10, 4)
    shown = log_mel[:, : max(1, round(seconds * SAMPLE_RATE / MEL_HOP))]
    axes = figure.add_subplot()
    image = axes.imshow(shown, origin="lower", aspect="auto", extent=(0, seconds, 0, len(shown)), cmap="magma")
    axes.set(xlabel="time / s", ylabel="mel band", title=title)
    figure.colorbar(image, ax=axes, label="log-mel")
    try:
        canvas.print_png(path)
    except OSError as error:
        raise AudioError(f"{path} could not be written: {error.strerror}.") from error


def matplotlib_canvas(width: float = 1, height: float = 1) -> tuple[Any, Any]:
    """A figure of so many inches, and what prints it. Raises ConfigError where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("Drawing a spectrogram needs matplotlib: pip install qwen2-audio[plot].") from error
    figure = Figure(figsize=(width, height), layout="constrained")  # pyplot would keep it and open a window system
    return figure, FigureCanvasAgg(figure)


@dataclass(frozen=True)
class Row:
    """A part of a sound, drawn from left to right. Times are seconds of the whole sound."""

    start: float
    seconds: float  # of the row; the last one's picture may end before
    log_mel: np.ndarray  # float [mel, columns]
    drawn: float  # s that the columns stand for
    spans: Sequence[tuple[float, float, str]] = ()  # start, end, what was said
    words: Sequence[tuple[float, str]] = ()  # start, word


def save_rows_png(rows: Sequence[Row], path: str | PathLike[str], *, title: str = "") -> None:
    """Draw rows below each other: their spectrograms, spans in boxes with their text above, words where they begin.

    Raises ConfigError where matplotlib is not installed, and OSError where the file cannot be written.
    """
    figure, canvas = matplotlib_canvas(14, 0.6 + 1.5 * len(rows))
    for axes, row in zip(np.atleast_1d(figure.subplots(len(rows), 1)), rows, strict=True):
        bands = len(row.log_mel)
        extent = (row.start, row.start + row.drawn, 0, bands)
        axes.imshow(row.log_mel, origin="lower", aspect="auto", extent=extent, cmap="magma")
        axes.set(xlim=(row.start, row.start + row.seconds), ylim=(0, 1.25 * bands), yticks=[])
        for start, end, text in row.spans:
            axes.axvspan(start, end, facecolor="none", edgecolor="tab:cyan", linewidth=0.8)
            room = max(1, int(250 * (end - start) / row.seconds))  # letters that fit, about
            shown = text if len(text) <= room else text[: room - 1] + "\N{HORIZONTAL ELLIPSIS}"
            axes.text(start, 1.08 * bands, shown, fontsize=7, clip_on=True, parse_math=False)
        for start, word in row.words:
            axes.text(
                start, 2, word, fontsize=6, color="white", rotation=90, va="bottom", clip_on=True, parse_math=False
            )
    figure.suptitle(title, fontsize=9, parse_math=False)
    figure.supxlabel("time / s", fontsize=8)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of scripts that matplotlib's font has not
        canvas.print_png(path)
