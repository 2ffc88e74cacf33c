"""Log-mel spectrogram of a waveform at 16 kHz, as Whisper's feature extractor defines it (128 bands, 10 ms).

The reference always computes a window of 30 s. Here the STFT stops where the clip ends: the rest is silence, whose
log-mel value is known. Shapes: S samples, L valid frames, F frames returned, C frames computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..errors import AudioError, ConfigError

SAMPLE_RATE = 16_000  # Hz: every waveform in this package
MEL_HOP = 160  # samples between frames: 10 ms
N_FFT = 400  # samples in a frame: 25 ms
WINDOW_SECONDS = 30  # the most audio that the encoder takes at once
WINDOW_TOLERANCE = 0.1  # s over the window that a clip may last and is heard as a whole window, its end dropped
WINDOW_SAMPLES = WINDOW_SECONDS * SAMPLE_RATE  # 480,000
WINDOW_FRAMES = WINDOW_SAMPLES // MEL_HOP  # 3,000

_EDGE = N_FFT // 2  # samples reflected at both ends of the 30 s window, because frames are centred
_BLOCK = 128  # frames transformed at a time: 0.4 MB, which stays in the CPU's cache
_ROWS = 8  # frames multiplied at a time: more would wake OpenBLAS's threads, which then spin beside the encoder
FLOOR = 1e-10  # of mel power
RANGE = 8.0  # log10 units kept below the loudest value: 80 dB
_MAX_ENERGY = 1e30  # sum of squares; beyond it the power of a frame may overflow float32


def num_frames(samples: int) -> int:
    """Valid mel frames of `samples` samples at 16 kHz: ceil(samples / 160), at most 3000."""
    return min(-(-samples // MEL_HOP), WINDOW_FRAMES)


def num_encoder_frames(mel_frames: int) -> int:
    """Encoder frames of `mel_frames` valid mel frames, after the convolution of stride 2: `(L - 1) // 2 + 1`."""
    return (mel_frames - 1) // 2 + 1


def num_audio_tokens(mel_frames: int) -> int:
    """Audio tokens of `mel_frames` valid mel frames: 25 per second; 0 for up to two frames (20 ms)."""
    return num_encoder_frames(mel_frames) // 2


def log_mel(waveform: np.ndarray, *, num_mel_bins: int = 128, pad_to_window: bool = False) -> np.ndarray:
    """float [S] at 16 kHz, at most 30 s -> float32 [num_mel_bins, F].

    F = min(2 * num_encoder_frames(L) + 2, 3000): the L valid frames and the frames that the encoder's convolutions
    see after them; with `pad_to_window`, F = 3000. Both give the values of the waveform padded to 30 s.
    Raises AudioError unless `waveform` is one finite mono waveform of at most 30 s.
    """
    clip = framed(waveform, pad_to_window=pad_to_window)
    out = np.full((num_mel_bins, clip.frames), FLOOR, np.float32)
    computed = out[:, : clip.computed]
    _mel_power(clip.samples, computed)
    np.log10(np.maximum(computed, FLOOR, out=computed), out=computed)
    np.maximum(computed, math.log10(FLOOR), out=computed)  # numpy's log10(1e-10) is just below -10 with AVX-512
    # Silence is log10(1e-10) = -10 and never above the maximum: the maximum of the computed frames is that of all 30 s.
    floor = computed.max() - np.float32(RANGE)
    out[:, clip.computed :] = math.log10(FLOOR)
    np.maximum(out, floor, out=out)
    out += 4
    out *= 0.25
    return out


@dataclass(frozen=True)
class Framed:
    """A clip padded for the STFT: frame i is `samples[160 * i : 160 * i + 400]`."""

    samples: np.ndarray  # float32 [160 * (computed - 1) + 400]
    computed: int  # frames that overlap the clip
    frames: int  # of the log-mel; frames from `computed` on are silence


def framed(waveform: np.ndarray, *, pad_to_window: bool = False) -> Framed:
    """The frames of float [S] that `log_mel` transforms. Raises AudioError as `log_mel` does."""
    waveform = _checked(waveform)
    valid = num_frames(len(waveform))
    frames = WINDOW_FRAMES if pad_to_window else min(2 * num_encoder_frames(valid) + 2, WINDOW_FRAMES)
    computed = min(valid + 2, WINDOW_FRAMES)  # a frame begins 200 samples before its centre: 2 more overlap the clip
    return Framed(_reflected(waveform, computed), computed, frames)


def _checked(waveform: np.ndarray) -> np.ndarray:
    waveform = np.asarray(waveform)
    if waveform.ndim != 1 or waveform.dtype.kind != "f":
        raise AudioError(
            f"Found a waveform of shape {waveform.shape} and dtype {waveform.dtype}; "
            "expected float [samples], mono at 16 kHz. qwen2_audio.audio.load makes one."
        )
    if len(waveform) > WINDOW_SAMPLES:
        raise AudioError(
            f"Found {len(waveform) / SAMPLE_RATE:.3f} s of sound; "
            f"expected at most {WINDOW_SECONDS} s in one window. Cut it into windows first."
        )
    waveform = np.ascontiguousarray(waveform, np.float32)
    energy = float(np.einsum("i,i->", waveform, waveform))  # one pass on one thread; NaN and infinity propagate
    if not energy < _MAX_ENERGY:
        problem = "samples far beyond full scale" if np.isfinite(waveform).all() else "NaN or infinite samples"
        raise AudioError(f"The waveform holds {problem}; expected finite samples between -1 and 1.")
    return waveform


def _reflected(waveform: np.ndarray, frames: int) -> np.ndarray:
    """The samples of the padded 30 s window that the first `frames` frames cover: [160 * (frames - 1) + 400]."""
    buffer = np.zeros(MEL_HOP * (frames - 1) + N_FFT, np.float32)
    buffer[_EDGE : _EDGE + len(waveform)] = waveform
    buffer[:_EDGE] = buffer[2 * _EDGE : _EDGE : -1]
    beyond = len(buffer) - (_EDGE + WINDOW_SAMPLES)
    if beyond > 0:  # the last frames reach over the right edge of the window
        last = _EDGE + WINDOW_SAMPLES - 1
        buffer[last + 1 :] = buffer[last - 1 : last - 1 - beyond : -1]
    return buffer


def _mel_power(buffer: np.ndarray, out: np.ndarray) -> None:
    """Fill out [mel, C] with the mel-weighted power of the frames of `buffer`."""
    frames = np.lib.stride_tricks.sliding_window_view(buffer, N_FFT)[::MEL_HOP]  # [C, 400], no copy
    hann, filters = window(), mel_filters(out.shape[0])
    for start in range(0, len(frames), _BLOCK):
        spectrum = np.fft.rfft(frames[start : start + _BLOCK] * hann, axis=1)  # [b, 201]
        power = spectrum.real * spectrum.real
        power += spectrum.imag * spectrum.imag
        power = power.astype(np.float32, copy=False)
        for at in range(0, len(power), _ROWS):
            out[:, start + at : start + at + _ROWS] = (power[at : at + _ROWS] @ filters).T


@lru_cache(maxsize=4)
def window(n_fft: int = N_FFT) -> np.ndarray:
    """Periodic Hann window, float32 [n_fft].

    The angle is rounded to float32 before the cosine, as in the reference. Without the rounding, the spectral leakage
    differs 70 dB below a loud tone, which is within the 80 dB that the log-mel keeps.
    """
    angle = np.arange(n_fft, dtype=np.float32) * np.float32(2 * math.pi / n_fft)
    window: np.ndarray = np.cos(angle.astype(np.float64)).astype(np.float32) * np.float32(-0.5) + np.float32(0.5)
    window.flags.writeable = False
    return window


@lru_cache(maxsize=4)
def mel_filters(num_mel_bins: int, n_fft: int = N_FFT, sampling_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Triangular mel filters, 0 to 8 kHz, on Slaney's scale with area normalisation.

    float32 [n_fft // 2 + 1, num_mel_bins]. At a lower rate, those beyond half of it are 0.
    """
    if num_mel_bins < 1:
        raise ConfigError(f"num_mel_bins is {num_mel_bins}; expected at least 1 (Qwen2-Audio has 128).")
    frequency = np.linspace(0, sampling_rate / 2, n_fft // 2 + 1)  # Hz
    edges = _mel_to_hz(np.linspace(0, _hz_to_mel(SAMPLE_RATE / 2), num_mel_bins + 2))
    width = np.diff(edges)
    distance = edges[None, :] - frequency[:, None]  # [201, num_mel_bins + 2]
    rising = -distance[:, :-2] / width[:-1]
    falling = distance[:, 2:] / width[1:]
    area = 2 / (edges[2:] - edges[:-2])
    filters: np.ndarray = (np.maximum(0, np.minimum(rising, falling)) * area).astype(np.float32)
    filters.flags.writeable = False
    return filters


# Slaney's mel scale: 3/200 mel per Hz up to 1 kHz, then 27 mel for every factor of 6.4.
def _hz_to_mel(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1000 else 15 + math.log(hertz / 1000) * 27 / math.log(6.4)


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * math.log(6.4) / 27))
