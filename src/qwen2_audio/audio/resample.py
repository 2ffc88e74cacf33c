"""Resample to 16 kHz block by block, bit for bit equal to resampling the whole clip at once."""

from __future__ import annotations

import math
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


class Waveform:
    """A growing buffer of float32 samples at 16 kHz; one bytearray, so that `finish` copies nothing."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._resampler: Resampler | None = None
        self.seconds = 0.0  # pushed so far

    def push(self, mono: np.ndarray, rate: int | float) -> None:
        """Append float32 [n] at `rate` Hz. The rate may change between calls, as in chained Ogg and HE-AAC."""
        if self._resampler is None or self._resampler.rate != rate:
            self._close_run()
            self._resampler = Resampler(rate)
        self._bytes += self._resampler.push(mono).tobytes()
        self.seconds += len(mono) / rate

    def finish(self) -> np.ndarray:
        """All samples, float32 [S] at 16 kHz."""
        self._close_run()
        return np.frombuffer(self._bytes, np.float32)

    def _close_run(self) -> None:
        if self._resampler is not None:
            self._bytes += self._resampler.finish().tobytes()
            self._resampler = None
