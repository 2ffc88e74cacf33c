"""Drums, piano, whistling."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .dsp import RATE, Array, Rng, add_at, band_noise, curve, decay, phase, samples, seconds_axis, swell

P = Mapping[str, float]
SCALE = (0, 2, 4, 5, 7, 9, 11)  # major, in semitones


def drum(p: P, rng: Rng, n: int) -> Array:
    """A drum kit: a pattern of kick, snare and hi-hat, repeated."""
    step = 60 / p["tempo"] / 2
    pattern = [
        (rng.random() < 0.45 or k % 8 == 0, k % 4 == 2 or rng.random() < 0.1, rng.random() < p["hats"])
        for k in range(8)
    ]
    out, at, k = np.zeros(n), rng.uniform(0, 0.2), 0
    while at * RATE < n:
        for hit, sound in zip(pattern[k % 8], (_kick, _snare, _hat), strict=True):
            if hit:
                add_at(out, sound(p, rng) * rng.uniform(0.85, 1.0), at)
        at, k = at + step, k + 1
    return out


def _kick(p: P, rng: Rng) -> Array:
    m = samples(0.3)
    t = seconds_axis(m)
    return 1.3 * np.sin(2 * np.pi * (p["kick"] * t - p["kick"] * 0.06 * np.exp(-t / 0.03))) * decay(m, 0.002, 0.1)


def _snare(p: P, rng: Rng) -> Array:
    m = samples(0.25)
    return 0.35 * band_noise(rng, m, 800, 7000, 1) * decay(m, 0.001, 0.06) + 0.5 * np.sin(
        2 * np.pi * 190 * seconds_axis(m)
    ) * decay(m, 0.001, 0.05)


def _hat(p: P, rng: Rng) -> Array:
    m = samples(0.08)
    return 0.18 * band_noise(rng, m, 5000, 7900, 3) * decay(m, 0.0005, 0.02)


def piano(p: P, rng: Rng, n: int) -> Array:
    """A tune on the piano: notes of a major scale that start hard and fade, chords under some."""
    out, at, degree = np.zeros(n), rng.uniform(0, 0.2), int(rng.integers(0, 7))
    while at * RATE < n:
        length = p["note"] * rng.choice([0.5, 1.0, 1.0, 2.0])
        degree = int(np.clip(degree + rng.integers(-3, 4), -4, 11))
        for add in (0, 2, 4) if rng.random() < p["chords"] else (0,):
            add_at(out, _note(p["root"] * _semitones(degree + add), rng), at)
        at += length
    return out


def _semitones(degree: int) -> float:
    return float(2 ** ((SCALE[degree % 7] + 12 * (degree // 7)) / 12))


def _note(f: float, rng: Rng) -> Array:
    m = samples(1.6)
    t, out = seconds_axis(m), np.zeros(m)
    for k in range(1, 11):
        fk = f * k * np.sqrt(1 + 0.0004 * k * k)  # stiff strings are sharp at the top
        if fk < 7600:
            out += k**-1.3 * np.exp(-t * (1.6 + 0.5 * k)) * np.sin(2 * np.pi * fk * t + rng.uniform(0, 6))
    hammer = samples(0.02)
    add_at(out, 0.15 * band_noise(rng, hammer, 200, 2500, 1) * decay(hammer, 0.001, 0.006), 0.0)
    return out * np.minimum(t / 0.004, 1.0) * swell(m, 0.001, 0.2)


def whistle(p: P, rng: Rng, n: int) -> Array:
    """Somebody whistling a tune: nearly pure tones that slide into each other, with breath."""
    out, at, degree = np.zeros(n), rng.uniform(0, 0.3), 0
    last = p["root"]
    while at * RATE < n:
        length = p["note"] * rng.uniform(0.6, 1.8)
        m = samples(length)
        degree = int(np.clip(degree + rng.integers(-3, 4), -3, 6))
        goal = p["root"] * _semitones(degree)
        slide = np.exp(-seconds_axis(m) / 0.04)
        vibrato = 1 + p["vibrato"] * np.sin(2 * np.pi * rng.uniform(4.5, 7) * seconds_axis(m)) * (1 - slide)
        freq = (goal + (last - goal) * slide) * vibrato
        tone = np.sin(phase(freq)) + 0.04 * np.sin(2 * phase(freq))
        breath = 0.03 * band_noise(rng, m, 1000, 6000) * curve([0.5, 1, 0.7], m)
        add_at(out, (tone + breath) * swell(m, 0.04, 0.06), at)
        last = goal
        at += length + (rng.uniform(0.1, 0.5) if rng.random() < 0.25 else 0.01)
    return out
