"""Rain, wind, thunder, water."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from .dsp import (
    RATE,
    Array,
    Rng,
    add_at,
    band,
    band_noise,
    coloured_noise,
    curve,
    decay,
    samples,
    seconds_axis,
    shaped,
    unit,
)

P = Mapping[str, float]


def rain(p: P, rng: Rng, n: int) -> Array:
    """A hiss of far drops and a crackle of near ones."""
    hiss = band_noise(rng, n, p["low"], 7500, 1) * curve(rng.uniform(0.85, 1.15, 6), n)
    near = np.zeros(n)
    for _ in range(4):  # four kinds of surface
        hits = np.zeros(n)
        count = rng.poisson(p["drops"] * n / RATE / 4)
        np.add.at(hits, rng.integers(0, n, count), rng.exponential(1.0, count) * rng.choice([-1, 1], count))
        centre = rng.uniform(1200, 6000)
        m = samples(0.012)
        drop = np.sin(2 * np.pi * centre * seconds_axis(m)) * decay(m, 0.0004, rng.uniform(0.001, 0.004))
        near += _convolved(hits, drop)
    return hiss + p["near"] * unit(near)


def _convolved(x: Array, kernel: Array) -> Array:
    size = 1 << int(np.ceil(np.log2(len(x) + len(kernel))))
    return np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(kernel, size), size)[: len(x)]


def wind(p: P, rng: Rng, n: int) -> Array:
    """Low roar in gusts, with a howl whose pitch follows the gust."""
    points = max(3, int(n / RATE * p["gusts"] * 2) + 2)
    gust = curve(rng.uniform(0.15, 1.0, points), n)
    roar = band_noise(rng, n, 40, 350, 1) * gust
    howl, steps = np.zeros(n), 5
    centres = p["howl"] * np.array([0.7, 0.85, 1.0, 1.2, 1.4])
    noise = rng.standard_normal(n)
    for k in range(steps):  # a moving resonance, made by cross-fading five fixed ones
        near = np.exp(-(((gust - k / (steps - 1)) / 0.18) ** 2))
        howl += near * unit(shaped(noise, partial(_resonance, centre=centres[k])))
    return roar + p["whistling"] * howl * gust**1.5


def _resonance(f: Array, centre: float) -> Array:
    return 1 / (1 + ((f - centre) / (0.05 * centre)) ** 2)


def thunder(p: P, rng: Rng, n: int) -> Array:
    """A crack, then rolling claps that get lower and softer."""
    out, at, force = np.zeros(n), rng.uniform(0.0, 0.5), 1.0
    crack = samples(0.25)
    add_at(out, p["crack"] * band_noise(rng, crack, 200, 3500, 1) * decay(crack, 0.004, 0.06), at)
    top = p["top"]
    while at * RATE < n and force > 0.03:
        m = samples(rng.uniform(0.8, 2.0))
        add_at(
            out, force * band_noise(rng, m, 25, top, 1) * decay(m, rng.uniform(0.03, 0.15), rng.uniform(0.25, 0.6)), at
        )
        at += rng.uniform(0.12, 0.6)
        force *= rng.uniform(0.7, 0.97) ** (1.6 / p["roll"])
        top = max(70.0, top * 0.9)
    return out


def water(p: P, rng: Rng, n: int) -> Array:
    """Bubbles: each a short sine that rises as the bubble shrinks, over a soft splash."""
    out = 0.05 * band_noise(rng, n, 300, 3000, 1) * curve(rng.uniform(0.5, 1.2, 8), n)
    for _ in range(rng.poisson(p["bubbles"] * n / RATE)):
        f = p["pitch"] * np.exp(rng.normal(0, 0.45))
        m = samples(rng.uniform(0.03, 0.12))
        t = seconds_axis(m)
        rising = f * (t + rng.uniform(1, 6) * t**2)
        add_at(
            out,
            rng.exponential(0.6) * np.sin(2 * np.pi * rising) * decay(m, 0.003, m / RATE / 3),
            rng.uniform(0, n / RATE),
        )
    splash = coloured_noise(rng, n, 1.0) * curve(rng.uniform(0, 1, max(3, n // RATE * 3)), n)
    return out + p["splash"] * band(splash, 400, 4000) * 0.3
