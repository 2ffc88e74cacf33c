"""Whisper's log-mel with any rate, window and hop, of all the samples there are, as its feature extractor defines it.

The model itself is given the log-mels of `audio.mel`, which have one setting and stop where the clip ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import AudioError
from . import mel


@dataclass(frozen=True)
class MelSettings:
    """What a frame is, and how often one begins."""

    num_mel_bins: int
    sampling_rate: int  # Hz
    hop: int  # samples between the starts of two frames
    n_fft: int  # samples in a frame
    dither: float = 0.0  # standard deviation of the noise that is added to the samples; 0: none


def log_mel(waveform: np.ndarray, settings: MelSettings) -> np.ndarray:
    """float32 [S] -> float32 [num_mel_bins, S // hop].

    Frames are centred, and the samples reflected at both ends. The noise of `dither` is numpy's global generator's.
    Raises AudioError for at most half a frame of samples, which cannot be reflected.
    """
    edge = settings.n_fft // 2
    if len(waveform) <= edge:
        raise AudioError(f"Found {len(waveform)} samples; expected more than {edge}, half a frame. Pad the clip first.")
    if settings.dither:
        waveform = waveform + settings.dither * np.random.standard_normal(len(waveform)).astype(np.float32)
    padded = np.pad(waveform.astype(np.float32, copy=False), edge, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, settings.n_fft)[:: settings.hop]
    spectrum = np.fft.rfft(frames[: len(waveform) // settings.hop] * mel.window(settings.n_fft), axis=1)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    filters = mel.mel_filters(settings.num_mel_bins, settings.n_fft, settings.sampling_rate)
    logarithm = np.log10(np.maximum(power @ filters, mel.FLOOR)).T
    logarithm = np.maximum(logarithm, math.log10(mel.FLOOR))
    if logarithm.size:
        logarithm = np.maximum(logarithm, logarithm.max() - np.float32(mel.RANGE))
    return np.ascontiguousarray((logarithm + np.float32(4)) * np.float32(0.25), np.float32)
