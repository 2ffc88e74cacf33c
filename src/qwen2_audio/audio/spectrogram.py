"""Draw a log-mel spectrogram, the model's view of a clip, as a PNG file."""

from __future__ import annotations

from os import PathLike

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
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("Drawing a spectrogram needs matplotlib: pip install qwen2-audio[plot].") from error
    shown = log_mel[:, : max(1, round(seconds * SAMPLE_RATE / MEL_HOP))]
    figure = Figure(figsize=(10, 4), layout="constrained")  # pyplot would keep the figure and open a window system
    axes = figure.add_subplot()
    image = axes.imshow(shown, origin="lower", aspect="auto", extent=(0, seconds, 0, len(shown)), cmap="magma")
    axes.set(xlabel="time / s", ylabel="mel band", title=title)
    figure.colorbar(image, ax=axes, label="log-mel")
    try:
        FigureCanvasAgg(figure).print_png(path)
    except OSError as error:
        raise AudioError(f"{path} could not be written: {error.strerror}.") from error
