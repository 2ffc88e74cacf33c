"""Dog, cat, bird, cricket. Each function: parameters `p`, a generator, a length in samples -> waveform [n]."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .dsp import Array, Rng, add_at, band_noise, buzz, curve, decay, phase, resonant, samples, swell, unit

P = Mapping[str, float]


def dog(p: P, rng: Rng, n: int) -> Array:
    """Barks: a rough voice, pitch up then down, mouth formants, single or in pairs."""
    out, at = np.zeros(n), rng.uniform(0, 0.3)
    while at * 16_000 < n:
        for _ in range(rng.choice([1, 1, 2, 3])):
            add_at(out, _bark(p, rng) * rng.uniform(0.6, 1.0), at)
            at += p["length"] + rng.uniform(0.06, 0.18)
        at += p["gap"] * rng.uniform(0.7, 1.4)
    return out


def _bark(p: P, rng: Rng) -> Array:
    m = samples(p["length"] * rng.uniform(0.85, 1.2))
    f0 = p["pitch"] * rng.uniform(0.9, 1.1) * curve([0.75, 1.25, 1.1, 0.6], m)
    rough = unit(buzz(f0 * (1 + 0.05 * rng.standard_normal(m)), 24, 0.9)) + p["rough"] * band_noise(rng, m, 300, 4000)
    mouth = 1 + (p["pitch"] - 150) / 900
    voiced = resonant(rough, [(550 * mouth, 300, 1.0), (1250 * mouth, 500, 0.8), (2600 * mouth, 800, 0.35)])
    return unit(voiced) * decay(m, 0.012, m / 16_000 / 2.2)


def cat(p: P, rng: Rng, n: int) -> Array:
    """Meows: a long harmonic call whose mouth opens and closes."""
    out, at = np.zeros(n), rng.uniform(0, 0.4)
    while at * 16_000 < n:
        length = p["length"] * rng.uniform(0.8, 1.25)
        add_at(out, _meow(p, rng, samples(length)) * rng.uniform(0.6, 1.0), at)
        at += length + p["gap"] * rng.uniform(0.6, 1.5)
    return out


def _meow(p: P, rng: Rng, n: int) -> Array:
    wobble = 1 + 0.015 * np.sin(2 * np.pi * rng.uniform(5, 9) * np.arange(n) / 16_000)
    f0 = p["pitch"] * curve([0.8, 1.15, 1.2, 1.05, rng.uniform(0.6, 0.85)], n) * wobble
    source = unit(buzz(f0, 14, 0.7)) + 0.06 * band_noise(rng, n, 1000, 6000)
    closed = resonant(source, [(650, 350, 1.0), (2300, 500, 0.15)])
    opened = resonant(source, [(1300, 600, 1.0), (2900, 700, 0.7), (4200, 900, 0.2)])
    mouth = curve([0.0, 0.6, 1.0, 0.7, 0.15], n)
    return ((1 - mouth) * closed + mouth * opened) * swell(n, 0.08, 0.25)


def bird(p: P, rng: Rng, n: int) -> Array:
    """Song: a phrase of fast high sweeps and trills, repeated with small changes."""
    phrase = [
        (rng.uniform(0.7, 1.3), rng.uniform(-0.35, 0.35), rng.uniform(0.6, 1.5), rng.random() < 0.3)
        for _ in range(rng.integers(2, 6))
    ]
    out, at = np.zeros(n), rng.uniform(0, 0.3)
    while at * 16_000 < n:
        for height, sweep, stretch, trill in phrase:
            length = p["length"] * stretch * rng.uniform(0.9, 1.1)
            add_at(out, _chirp(p, rng, samples(length), height, sweep, trill), at)
            at += length + p["gap"] * rng.uniform(0.3, 0.7)
        at += p["gap"] * rng.uniform(2, 6)
    return out


def _chirp(p: P, rng: Rng, n: int, height: float, sweep: float, trill: bool) -> Array:
    f: Array = np.clip(p["pitch"] * height, 1900, 6800) * (1 + sweep * np.linspace(-1, 1, n))
    if trill:
        f = f * (1 + 0.15 * np.sin(2 * np.pi * rng.uniform(25, 55) * np.arange(n) / 16_000))
    f = np.clip(f, 1500, 7500)
    return (np.sin(phase(f)) + 0.1 * np.sin(2 * phase(f)) * (f < 3700)) * swell(n, 0.012, 0.025) * rng.uniform(0.5, 1)


def cricket(p: P, rng: Rng, n: int) -> Array:
    """Chirps of a few fast pulses on one high pitch, evenly repeated, sometimes several animals."""
    out = np.zeros(n)
    for _ in range(rng.integers(1, 3)):
        pitch, pulses = p["pitch"] * rng.uniform(0.94, 1.06), int(rng.integers(3, 6))
        step = 1 / p["pulse_rate"]
        m = samples(step * 0.7)
        pulse = np.sin(2 * np.pi * pitch * np.arange(m) / 16_000) * np.hanning(m)
        at, gain = rng.uniform(0, 0.3), rng.uniform(0.4, 1.0)
        while at * 16_000 < n:
            for k in range(pulses):
                add_at(out, gain * pulse * (0.6 + 0.4 * k / pulses), at + k * step)
            at += (pulses * step + p["gap"]) * rng.uniform(0.97, 1.03)
    return out
