"""Facts about a clip: its length, format, audio tokens and spectrogram."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ..audio import mel
from ..audio.decode import read_header
from ..audio.io import SAMPLE_RATE, load
from ..audio.spectrogram import save_png
from . import terminal


def facts_of_sound(target: str, png: Path | None) -> dict[str, Any]:
    """The facts about the clip `target`; draws its first 30 s into `png`. Raises AudioError if it cannot be read."""
    waveform = load(target)
    seconds = len(waveform) / SAMPLE_RATE
    first = waveform[: mel.WINDOW_SAMPLES]
    frames = mel.num_frames(len(first))
    beyond = max(0.0, seconds - mel.WINDOW_SECONDS)
    facts: dict[str, Any] = {
        "sound": target if len(target) <= 200 else target[:200] + "...",
        "seconds": round(seconds, 4),
        **_stored_form(target),
        "peak": round(float(np.abs(waveform).max()), 4),
        "mel_frames": frames,
        "audio_tokens": mel.num_audio_tokens(frames),
        "seconds_beyond_the_window": round(beyond, 4),
        "spectrogram": _draw(first, png, os.fsencode(Path(target).name[:80]).decode(errors="replace")),
    }
    if facts["audio_tokens"] == 0:
        terminal.note("Too short: it makes 0 audio tokens, and would not be heard.")
    if beyond > mel.WINDOW_TOLERANCE:
        windows = -(-len(waveform) // mel.WINDOW_SAMPLES)
        terminal.note(
            f"{mel.WINDOW_SECONDS} s are heard at a time: split it into {windows} clips; the figures are the first's."
        )
    return facts


def _stored_form(target: str) -> dict[str, Any]:
    """Codec, rate and channels of a local file; the loaded waveform has 16 kHz and one channel. {} for a URL."""
    if not os.path.isfile(target):
        return {}
    with Path(target).open("rb") as file:
        header = read_header(file)
    return {"codec": header.codec, "rate": header.rate, "channels": header.channels}


def _draw(waveform: np.ndarray, png: Path | None, title: str) -> str | None:
    if png is None:
        return None
    from ..errors import ConfigError

    try:
        save_png(mel.log_mel(waveform), png, seconds=len(waveform) / SAMPLE_RATE, title=title)
    except ConfigError as error:  # without matplotlib the other facts are still printed
        terminal.note(str(error))
        return None
    return str(png)
