"""Things that strike: footsteps, knocking, applause, breaking glass."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .dsp import RATE, Array, Rng, add_at, band_noise, decay, modes, samples, unit

P = Mapping[str, float]


def footsteps(p: P, rng: Rng, n: int) -> Array:
    """Walking: heel, then sole, then a scuff; evenly, with a human's small unevenness."""
    out, at, k = np.zeros(n), rng.uniform(0, 0.3), 0
    lame = rng.uniform(0.97, 1.03)
    while at * RATE < n:
        add_at(out, _step(p, rng) * rng.uniform(0.75, 1.0), at)
        at, k = at + p["period"] * (lame if k % 2 else 2 - lame) * rng.uniform(0.96, 1.04), k + 1
    return out


def _step(p: P, rng: Rng) -> Array:
    m = samples(0.32)
    body = p["floor"] * rng.uniform(0.9, 1.1)
    step = modes(m, [body, 2.3 * body], [0.03, 0.015], [1.0, 0.4])
    heel = band_noise(rng, m, 200, 3000, 1) * decay(m, 0.001, 0.012)
    sole = np.zeros(m)
    tail = samples(0.2)
    scuff = band_noise(rng, tail, 700, 5500, 1) * decay(tail, 0.02, 0.045)
    add_at(sole, p["scuff"] * scuff, rng.uniform(0.07, 0.11))
    return step + 0.5 * heel + 0.6 * sole


def knocking(p: P, rng: Rng, n: int) -> Array:
    """Knuckles on a door: groups of two to five quick hollow knocks, then a pause."""
    out, at = np.zeros(n), rng.uniform(0, 0.4)
    board = p["board"] * np.array([1.0, 1.83, 2.71, 4.2]) * rng.uniform(0.95, 1.05, 4)
    m = samples(0.25)
    while at * RATE < n:
        for _ in range(rng.integers(2, 6)):
            knock = modes(m, board, p["ring"] * np.array([1.0, 0.6, 0.4, 0.2]), [1.0, 0.7, 0.45, 0.3])
            knock += 0.3 * band_noise(rng, m, 500, 4500, 1) * decay(m, 0.0005, 0.004)
            add_at(out, knock * rng.uniform(0.75, 1.0), at)
            at += p["spacing"] * rng.uniform(0.92, 1.08)
        at += rng.uniform(0.5, 1.4)
    return out


def applause(p: P, rng: Rng, n: int) -> Array:
    """A crowd clapping: every pair of hands has its own colour and its own pace."""
    out = np.zeros(n)
    crowd = round(p["people"])
    for _ in range(crowd):
        m = samples(0.03)
        clap = band_noise(rng, m, p["tone"] * rng.uniform(0.5, 0.8), p["tone"] * rng.uniform(1.3, 2.2), 2)
        clap *= decay(m, 0.0008, rng.uniform(0.003, 0.008)) * rng.uniform(0.3, 1.0)
        pace = p["pace"] * rng.uniform(0.8, 1.25)
        times = np.arange(rng.uniform(0, 1 / pace), n / RATE, 1 / pace)
        for at in times + rng.normal(0, 0.02, len(times)):
            add_at(out, clap * rng.uniform(0.7, 1.0), at)
    return out


def glass(p: P, rng: Rng, n: int) -> Array:
    """A crash of glass, then shards that ring and fall."""
    out, at = np.zeros(n), rng.uniform(0.0, 0.6)
    m = samples(0.3)
    add_at(out, 1.3 * band_noise(rng, m, 900, 7500, 1) * decay(m, 0.0015, p["crash"]), at)
    thud = samples(0.15)
    add_at(out, rng.uniform(0, 0.5) * band_noise(rng, thud, 80, 500, 1) * decay(thud, 0.002, 0.03), at)
    for _ in range(rng.poisson(p["shards"])):
        late = rng.exponential(p["spread"])
        k = samples(0.5)
        f = p["pitch"] * rng.uniform(0.6, 2.2, 3)
        shard = modes(k, f, rng.uniform(0.015, 0.12, 3), rng.uniform(0.3, 1.0, 3))
        add_at(out, 0.6 * shard * np.exp(-late / (2.5 * p["spread"])) * rng.exponential(0.7), at + late)
    return unit(out)
