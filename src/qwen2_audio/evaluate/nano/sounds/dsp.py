"""Building blocks of every sound: noise, tones, damped modes, filters. Waveforms are float64 [n] at 16 kHz."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

RATE = 16_000
NYQUIST = RATE / 2
Array = npt.NDArray[np.float64]
Values = Sequence[float] | Array
Rng = np.random.Generator


def samples(seconds: float) -> int:
    """Seconds as a count of samples, at least 1."""
    return max(1, round(seconds * RATE))


def seconds_axis(n: int) -> Array:
    """Time of each sample, in seconds [n]."""
    return np.arange(n) / RATE


def shaped(x: Array, gain: Callable[[Array], Array]) -> Array:
    """`x` filtered by `gain` (a function of Hz), zero phase; half a length of zeros keeps the end off the start."""
    size = 1 << int(np.ceil(np.log2(len(x) * 1.5 + 64)))
    frequencies = np.asarray(np.fft.rfftfreq(size, 1 / RATE), np.float64)
    return np.fft.irfft(np.fft.rfft(x, size) * gain(frequencies), size)[: len(x)]


def band(x: Array, low: float, high: float, order: int = 2) -> Array:
    """Butterworth-like band-pass between `low` and `high` Hz (low 0: a low-pass)."""

    def gain(f: Array) -> Array:
        g = 1 / np.sqrt(1 + (f / high) ** (2 * order))
        return g if low <= 0 else g / np.sqrt(1 + (low / np.maximum(f, 1e-3)) ** (2 * order))

    return shaped(x, gain)


def band_noise(rng: Rng, n: int, low: float, high: float, order: int = 2) -> Array:
    """White noise through `band`, scaled to RMS 1."""
    return unit(band(rng.standard_normal(n), low, high, order))


def coloured_noise(rng: Rng, n: int, slope: float) -> Array:
    """Noise whose power falls as 1 / f**slope: 0 white, 1 pink, 2 brown. RMS 1."""
    return unit(shaped(rng.standard_normal(n), lambda f: np.maximum(f, 20.0) ** (-slope / 2)))


def resonant(x: Array, peaks: Sequence[tuple[float, float, float]]) -> Array:
    """`x` through parallel resonances, each (centre Hz, width Hz, gain): formants, a box, a pipe."""

    def gain(f: Array) -> Array:
        total = np.zeros_like(f)
        for c, w, g in peaks:
            total += g / (1 + ((f - c) / (w / 2)) ** 2)
        return total + 0.01

    return shaped(x, gain)


def unit(x: Array) -> Array:
    """Scaled to RMS 1; silence stays silence."""
    rms = np.sqrt(np.mean(x**2))
    return x / rms if rms > 1e-9 else x


def phase(freq: Array) -> Array:
    """Phase in radians [n] of an oscillator with `freq` Hz at each sample."""
    return 2 * np.pi * np.cumsum(freq) / RATE


def buzz(freq: Array, count: int, slope: float) -> Array:
    """Harmonics 1..count of `freq` Hz [n], amplitude k**-slope, none beyond 7.6 kHz."""
    angle, out = phase(freq), np.zeros(len(freq))
    for k in range(1, count + 1):
        if k * freq.min() > 7600:
            break
        out += np.where(k * freq < 7600, k**-slope, 0.0) * np.sin(k * angle)
    return out


def curve(values: Values, n: int) -> Array:
    """A smooth line [n] through evenly spaced `values`."""
    x = np.linspace(0, len(values) - 1, n)
    at: npt.NDArray[np.int64] = np.minimum(x.astype(np.int64), len(values) - 2)
    u: Array = x - at
    v = np.asarray(values, dtype=np.float64)
    return v[at] + (v[at + 1] - v[at]) * (u * u * (3 - 2 * u))


def modes(n: int, freqs: Values, decays: Values, gains: Values) -> Array:
    """Damped sinusoids struck at sample 0: the sound of a hit body. `decays` in seconds to 1/e."""
    t, out = seconds_axis(n), np.zeros(n)
    for f, d, g in zip(freqs, decays, gains, strict=True):
        if f < 7800:
            out += g * np.exp(-t / d) * np.sin(2 * np.pi * f * t)
    return out


def swell(n: int, attack: float, release: float) -> Array:
    """An envelope [n] that rises in `attack` and falls in `release` seconds, flat between."""
    a, r = min(samples(attack), n), min(samples(release), n)
    out = np.ones(n)
    out[:a] *= np.sin(np.linspace(0, np.pi / 2, a)) ** 2
    out[n - r :] *= np.cos(np.linspace(0, np.pi / 2, r)) ** 2
    return out


def decay(n: int, attack: float, fall: float) -> Array:
    """An envelope [n] of a quick attack and an exponential fall to 1/e in `fall` seconds."""
    t = seconds_axis(n)
    return np.minimum(t / max(attack, 1e-4), 1.0) * np.exp(-t / fall)


def add_at(out: Array, piece: Array, at: float) -> None:
    """Add `piece` to `out` from `at` seconds on, cut where `out` ends."""
    start = round(at * RATE)
    if 0 <= start < len(out):
        end = min(len(out), start + len(piece))
        out[start:end] += piece[: end - start]
