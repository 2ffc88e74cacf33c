"""Synthetic clips, made here so that a benchmark needs no file."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..audio.resample import SAMPLE_RATE


def clip(seconds: float) -> npt.NDArray[np.float32]:
    """A clip of `seconds` at 16 kHz, float32 [S]: a rising and falling tone over noise, the same at every call."""
    samples = round(seconds * SAMPLE_RATE)
    time = np.arange(samples) / SAMPLE_RATE
    tone = 0.3 * np.sin(2 * np.pi * (440 * time + 60 * np.sin(2 * np.pi * 0.7 * time)))
    noise = 0.05 * np.random.default_rng(0).standard_normal(samples)
    waveform: npt.NDArray[np.float32] = (tone + noise).astype(np.float32)
    return waveform


def clip_variant(seconds: float, variant: int) -> npt.NDArray[np.float32]:
    """`clip` with a tenth of a second at half volume: sounds much the same, but no cache takes it for the same clip.

    Returns float32 [S] at 16 kHz.
    """
    waveform = clip(seconds)
    start = (variant * 977) % max(len(waveform) - SAMPLE_RATE // 10, 1)
    waveform[start : start + SAMPLE_RATE // 10] *= 0.5
    return waveform
