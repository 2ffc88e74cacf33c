"""A picture of what the model hears."""

from __future__ import annotations

from os import PathLike

import numpy as np

from ..errors import AudioError, ConfigError
from .mel import MEL_HOP
from .resample import SAMPLE_RATE


def save_png(log_mel: np.ndarray, path: str | PathLike[str], *, seconds: float, title: str = "") -> None:
    """Draw log_mel [mel, F] up to `seconds` of sound into a PNG file: time in s, mel band, brightness = loudness.

    Raises ConfigError without matplotlib, AudioError when there is nothing to draw or the file cannot be written.
    """
    if log_mel.ndim != 2 or not 0 < seconds <= log_mel.shape[1] * MEL_HOP / SAMPLE_RATE:
        raise AudioError(
            f"Found a log-mel of shape {log_mel.shape} for {seconds:g} s; "
            "expected [mel bands, frames] with 100 frames for every second."
        )
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("Drawing a spectrogram needs matplotlib: pip install qwen2-audio[plot].") from error
    heard = log_mel[:, : max(1, round(seconds * SAMPLE_RATE / MEL_HOP))]
    figure = Figure(figsize=(10, 4), layout="constrained")  # no pyplot: it keeps figures and picks a window system
    axes = figure.add_subplot()
    image = axes.imshow(heard, origin="lower", aspect="auto", extent=(0, seconds, 0, len(heard)), cmap="magma")
    axes.set(xlabel="time / s", ylabel="mel band", title=title)
    figure.colorbar(image, ax=axes, label="log-mel")
    try:
        FigureCanvasAgg(figure).print_png(path)
    except OSError as error:
        raise AudioError(f"{path} could not be written: {error.strerror}.") from error
