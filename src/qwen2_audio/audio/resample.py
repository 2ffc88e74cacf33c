"""Blocks at any rate to mono at 16 kHz, block by block, equal bit for bit to resampling the whole at once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

SAMPLE_RATE = 16_000  # Hz, of everything the model hears


def mix_down(samples: np.ndarray) -> np.ndarray:
    """float32 [n, channels] -> the mean over channels, [n]."""
    if samples.shape[1] == 1:
        return samples[:, 0]
    if samples.shape[1] == 2:
        both: np.ndarray = samples[:, 0] + samples[:, 1]
        both *= np.float32(0.5)  # the same bits as mean(), ten times faster
        return both
    mean: np.ndarray = samples.mean(axis=1)
    return mean


class Resampler:
    """One run of mono samples at `rate` Hz, pushed in blocks. soxr's HQ setting, the one librosa uses."""

    def __init__(self, rate: int | float) -> None:
        self.rate = rate
        self.samples_in = 0
        self._samples_out = 0
        self._stream: Any = None
        if rate != SAMPLE_RATE:
            import soxr

            self._stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")

    def push(self, block: np.ndarray) -> np.ndarray:
        """float32 [n] at `rate` -> float32 [m] at 16 kHz; what is missing comes with a later call."""
        self.samples_in += len(block)
        if self._stream is None:
            return block
        out: np.ndarray = self._stream.resample_chunk(block)
        self._samples_out += len(out)
        return out

    def finish(self) -> np.ndarray:
        """The last samples, so that the whole has ceil(samples_in * 16000 / rate): soxr itself rounds down at times."""
        if self._stream is None:
            return np.zeros(0, np.float32)
        tail: np.ndarray = self._stream.resample_chunk(np.zeros(0, np.float32), last=True)
        # float product first, as in librosa: 16000 / rate rounded to float64 decides the last sample
        missing = math.ceil(self.samples_in * (SAMPLE_RATE / self.rate)) - self._samples_out
        return np.pad(tail[:missing], (0, max(0, missing - len(tail))))


class Waveform:
    """float32 samples at 16 kHz that grow in place: no list of blocks, no second copy at the end."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._resampler: Resampler | None = None
        self.seconds = 0.0  # of sound pushed so far

    def push(self, mono: np.ndarray, rate: int | float) -> None:
        """Append float32 [n] at `rate` Hz. The rate may change on the way, as in chained Ogg and HE-AAC."""
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
