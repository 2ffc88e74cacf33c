"""Resample to 16 kHz block by block, bit for bit equal to resampling the whole clip at once."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from .mel import SAMPLE_RATE as SAMPLE_RATE


def mix_down(samples: np.ndarray) -> np.ndarray:
    """float32 [n, channels] -> the mean over channels, [n]."""
    if samples.shape[1] == 1:
        return samples[:, 0]
    if samples.shape[1] == 2:
        stereo_mean: np.ndarray = samples[:, 0] + samples[:, 1]
        stereo_mean *= np.float32(0.5)  # the same bits as mean(), ten times faster
        return stereo_mean
    mean: np.ndarray = samples.mean(axis=1)
    return mean


def tracks_of(samples: np.ndarray, *, split: bool) -> list[np.ndarray]:
    """float32 [n, channels] -> each channel [n] with `split`, else one, their mean."""
    return [np.ascontiguousarray(channel) for channel in samples.T] if split else [mix_down(samples)]


class Resampler:
    """Resamples a mono signal at `rate` Hz that arrives in blocks, with soxr's HQ quality as librosa does."""

    def __init__(self, rate: int | float) -> None:
        self.rate = rate
        self.samples_in = 0
        self._samples_out = 0
        self._stream: Any = None
        if rate != SAMPLE_RATE:
            import soxr

            self._stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")

    def push(self, block: np.ndarray) -> np.ndarray:
        """float32 [n] at `rate` -> float32 [m] at 16 kHz; soxr holds some samples back until a later call."""
        self.samples_in += len(block)
        if self._stream is None:
            return block
        out: np.ndarray = self._stream.resample_chunk(block)
        self._samples_out += len(out)
        return out

    def finish(self) -> np.ndarray:
        """The remaining samples, padded to ceil(samples_in * 16000 / rate) in total: soxr sometimes rounds down."""
        if self._stream is None:
            return np.zeros(0, np.float32)
        tail: np.ndarray = self._stream.resample_chunk(np.zeros(0, np.float32), last=True)
        # Divide before multiplying, as librosa does: the float64 rounding of 16000 / rate decides the last sample.
        missing = math.ceil(self.samples_in * (SAMPLE_RATE / self.rate)) - self._samples_out
        return np.pad(tail[:missing], (0, max(0, missing - len(tail))))


class StreamResampler:
    """Resamples a mono signal that arrives in blocks and whose rate may change, as in chained Ogg and HE-AAC."""

    def __init__(self) -> None:
        self._run: Resampler | None = None
        self.seconds = 0.0  # pushed so far

    def push(self, mono: np.ndarray, rate: int | float) -> np.ndarray:
        """float32 [n] at `rate` Hz -> float32 [m] at 16 kHz, what is known by now."""
        before = np.zeros(0, np.float32)
        if self._run is None or self._run.rate != rate:
            before, self._run = self.finish(), Resampler(rate)
        samples = self._run.push(mono)
        self.seconds += len(mono) / rate
        return np.concatenate([before, samples]) if len(before) else samples

    def finish(self) -> np.ndarray:
        """The samples that were held back; the signal may go on."""
        run, self._run = self._run, None
        return np.zeros(0, np.float32) if run is None else run.finish()


def join(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """float32 blocks one after the other; they are freed as they come, and nothing is copied in the end."""
    buffer = bytearray()
    for block in blocks:
        buffer += block.tobytes()
    return np.frombuffer(buffer, np.float32)
