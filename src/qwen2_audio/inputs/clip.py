"""Load one clip of a conversation completely, or refuse it with a reason. numpy only."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..audio import mel
from ..audio.io import SAMPLE_RATE, SoundWarning, load_with_notes, name_of
from ..audio.limits import Limits
from ..errors import AudioError, LongClipError
from ..types import Heard

BY_PARTS = ", or ask with long='parts', which hears it window by window"  # what callers of m.chat can do


# A clip of more than a window is refused. Up to 600 s are decoded so that the message can say how long the clip is.
class _ClipLimits(Limits):
    """Limits whose sentence on seconds names the window, which is what limits a clip."""

    def check_seconds(self, seconds: float, name: str) -> None:
        if seconds > self.max_seconds:
            raise LongClipError(
                f"{name} lasts more than {self.max_seconds:,g} s, and {mel.WINDOW_SECONDS} s are heard at a time; "
                "nothing is cut off here. Split it into clips of at most 30 s",
                in_python=f"{BY_PARTS}.",
            )


LIMITS = _ClipLimits(max_seconds=600.0, deadline=60.0)


@dataclass(frozen=True)
class AudioClip:
    """A clip of at most 30 s: what is heard of its source."""

    waveform: np.ndarray  # float32 [S], 16 kHz
    heard: Heard  # seconds and audio tokens

    @property
    def frames(self) -> int:
        """Valid mel frames."""
        return mel.num_frames(len(self.waveform))

    def log_mel(self, num_mel_bins: int) -> np.ndarray:
        """float32 [num_mel_bins, F]: the clip's frames and at most 3 more, as `audio.mel.log_mel`."""
        return mel.log_mel(self.waveform, num_mel_bins=num_mel_bins)


def load_clip(source: Any, number: int = 1) -> AudioClip:
    """Read a clip; `number`, from 1, names it in messages. Raises AudioError: unreadable, under 21 ms, over 30.1 s."""
    name = f"Clip {number}"
    try:
        waveform, notes = load_with_notes(source, limits=LIMITS, name=name)
        clip = clip_from_waveform(waveform, name_of(source) or name, notes)
    except AudioError as error:
        error.clip = number
        if name_of(source) is None and not str(error).startswith(name):
            error.args, error.sentence = (f"{name}: {error}",), f"{name}: {error.sentence}"
        raise
    for note in notes:
        warnings.warn(note, SoundWarning, stacklevel=2)
    return clip


def clip_from_waveform(waveform: np.ndarray, name: str, notes: tuple[str, ...] = ()) -> AudioClip:
    """A clip of decoded samples, float32 [S] at 16 kHz, which are not copied; `name` is what messages call it, and
    `notes` what was said of its source.

    Up to 0.1 s over a window (30 s), as segmenters leave, are dropped, and a note says so.
    Raises AudioError for more, and for less than an audio token (321 samples).
    """
    seconds = len(waveform) / SAMPLE_RATE
    over = len(waveform) - mel.WINDOW_SAMPLES
    if over > mel.WINDOW_TOLERANCE * SAMPLE_RATE:
        raise LongClipError(
            f"{name} lasts {seconds:.6g} s, and {mel.WINDOW_SECONDS} s are heard at a time; nothing is cut off here. "
            "Split it into clips of at most 30 s",
            in_python=f" and pass them as a list{BY_PARTS}. (Qwen2AudioProcessor keeps the first 30 s.)",
        )
    if over > 0:
        notes = (*notes, f"{name} lasts {seconds:.6g} s; its first {mel.WINDOW_SECONDS} s are heard, a whole window.")
        waveform, seconds = waveform[: mel.WINDOW_SAMPLES], float(mel.WINDOW_SECONDS)
    tokens = mel.num_audio_tokens(mel.num_frames(len(waveform)))
    if tokens < 1:
        raise AudioError(
            f"{name} has {len(waveform)} samples ({seconds * 1000:.3g} ms): too short, it makes 0 audio tokens and "
            f"would not be heard. Expected at least {2 * mel.MEL_HOP + 1} samples at {SAMPLE_RATE} Hz, 21 ms."
        )
    return AudioClip(waveform, Heard(seconds, tokens, notes))
