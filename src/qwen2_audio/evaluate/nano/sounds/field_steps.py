"""Steps and hands as recordings have them: soles on nine grounds, claps of one and of many. -> waveform [n]."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from .dsp import RATE, Array, Rng, add_at, band, band_noise, buzz, curve, decay, modes, resonant, samples, swell, unit

P = Mapping[str, float]
Step = Callable[[P, Rng], Array]


def _grains(rng: Rng, m: int, low: float, high: float, count: float, shape: Array) -> Array:
    """`count` tiny cracks between `low` and `high` Hz, as dense as `shape` [m] is high."""
    hits = np.zeros(m)
    where = rng.choice(m, rng.poisson(count) + 1, p=shape / shape.sum())
    np.add.at(hits, where, rng.exponential(1.0, len(where)) * rng.choice([-1, 1], len(where)))
    k = samples(0.004)
    centre = low * (high / low) ** rng.random()
    return unit(
        band(np.convolve(hits, band_noise(rng, k, centre, 7800, 1) * decay(k, 0.0002, 0.001))[:m], low, high, 1)
    )


def _walk(p: P, rng: Rng, n: int, step: Step) -> Array:
    """Steps at a human's pace; sometimes the walker comes or goes, or is alone with a single step."""
    out, at = np.zeros(n), rng.uniform(0, 0.12)
    lame = rng.uniform(0.93, 1.07)
    nearer = curve(np.exp(rng.uniform(-1.2, 0, 3)) if rng.random() < 0.4 else np.ones(3), n)
    k = 0
    while at * RATE < n:
        add_at(out, step(p, rng) * rng.uniform(0.55, 1.0), at)
        at, k = at + p["period"] * (lame if k % 2 else 2 - lame) * rng.uniform(0.93, 1.07), k + 1
    return out * nearer


def _thud(rng: Rng, m: int, body: float) -> Array:
    return modes(m, [body, body * rng.uniform(2, 2.8)], [rng.uniform(0.015, 0.05), 0.012], [1.0, 0.4])


def loose(p: P, rng: Rng, n: int) -> Array:
    """Gravel, sand, snow, leaves, grass: every step crunches, heel first and then the toes."""
    low = rng.uniform(200, 1500)
    high, body, thud = min(7800.0, low * rng.uniform(2.5, 8)), rng.uniform(60, 200), rng.uniform(0, 0.5)

    def step(p: P, rng: Rng) -> Array:
        m = samples(p["length"])
        t = np.linspace(0, 1, m)
        toes = rng.uniform(0.4, 0.7)
        shape = np.exp(-(((t - 0.12) / 0.1) ** 2)) + rng.uniform(0.3, 1) * np.exp(-(((t - toes) / 0.15) ** 2)) + 0.02
        crunch = _grains(rng, m, low, high, p["grains"] * p["length"], shape)
        return crunch + 0.3 * band_noise(rng, m, low, high, 1) * shape + thud * _thud(rng, m, body) * 3

    return _walk(p, rng, n, step)


def hard(p: P, rng: Rng, n: int) -> Array:
    """Stone, tiles, parquet, stairs: a click of the heel, a thud below it, then the sole."""
    bright, sole = rng.uniform(2000, 7500), rng.uniform(0, 0.6)

    def step(p: P, rng: Rng) -> Array:
        m = samples(0.3)
        heel = band_noise(rng, m, 300, bright, 1) * decay(m, 0.0005, p["click"])
        scuff = band_noise(rng, m, 500, bright, 1) * np.exp(-(((np.linspace(0, 0.3, m) - 0.11) / 0.03) ** 2))
        return _thud(rng, m, p["floor"] * rng.uniform(0.9, 1.1)) + rng.uniform(0.4, 1.2) * heel + sole * 0.4 * scuff

    return _walk(p, rng, n, step)


def ringing(p: P, rng: Rng, n: int) -> Array:
    """Boards, ladders, sheet metal, ice: the ground answers with its own modes."""
    ratios = np.sort(rng.uniform(1, 9, 7))

    def step(p: P, rng: Rng) -> Array:
        m = samples(0.4)
        body = modes(m, p["floor"] * ratios, p["ring"] / ratios**0.5, rng.uniform(0.2, 1, 7))
        return unit(body) + 0.5 * band_noise(rng, m, 300, 6000, 1) * decay(m, 0.001, 0.01)

    return _walk(p, rng, n, step)


def _clap(rng: Rng, tone: float) -> Array:
    """A pair of hands: a broad crack, coloured by the hollow between them."""
    m = samples(0.06)
    crack = rng.standard_normal(m) * decay(m, 0.0006, rng.uniform(0.002, 0.012))
    hollow = [
        (tone * rng.uniform(0.7, 1.4), tone * rng.uniform(0.5, 1.2), 1.0),
        (tone * rng.uniform(2, 3.5), 2500, 0.5),
    ]
    return unit(resonant(crack, hollow) + 0.15 * crack)


def _claps(rng: Rng, n: int, people: int, tone: float, pace: float, loose: float) -> Array:
    out = np.zeros(n)
    bank = [_clap(rng, tone) for _ in range(min(people, 24))]
    for k in range(people):
        own, near = pace * rng.uniform(0.75, 1.3), np.exp(rng.normal(0, 0.7))
        times = np.arange(rng.uniform(0, 1 / own), n / RATE, 1 / own)
        for at in times + rng.normal(0, loose, len(times)):
            add_at(out, bank[k % len(bank)] * near * rng.uniform(0.6, 1.0), float(at))
    return out


def crowd(p: P, rng: Rng, n: int) -> Array:
    """A full hall: single claps on a rushing mass of them, rising at first and dying away at the end."""
    mass = band_noise(rng, n, rng.uniform(300, 900), rng.uniform(4000, 7800), 1)
    mass *= 1 + 0.25 * unit(band_noise(rng, n, 0, 30))
    swing = curve(np.exp(rng.uniform(-0.5, 0.2, 5)), n)
    rise, end = (rng.uniform(0.1, 2) if rng.random() < 0.4 else 0.002 for _ in range(2))
    near = unit(_claps(rng, n, round(p["people"]), p["tone"], p["pace"], 0.03))
    return (near + p["mass"] * mass) * swing * swell(n, rise, end)


def few(p: P, rng: Rng, n: int) -> Array:
    """One to eight people clap, sometimes in time."""
    return _claps(rng, n, round(p["people"]), p["tone"], p["pace"], rng.uniform(0.004, 0.03))


def cheering(p: P, rng: Rng, n: int) -> Array:
    """Applause with shouts and whistles in it."""
    out = unit(crowd({**p, "people": 30, "mass": rng.uniform(0.3, 1.5)}, rng, n))
    voices = np.zeros(n)
    for _ in range(round(p["voices"])):
        m = samples(rng.uniform(0.4, 1.6))
        pitch = rng.uniform(150, 600) * curve(np.exp(rng.uniform(-0.2, 0.4, 4)), m)
        mouth = [(rng.uniform(350, 900), 250, 1.0), (rng.uniform(800, 1800), 400, 0.6), (2800, 800, 0.2)]
        call = unit(resonant(buzz(pitch, 20, 0.9), mouth)) * swell(m, 0.1, 0.3)
        add_at(voices, call * rng.exponential(0.6), rng.uniform(0, max(0.05, n / RATE - 0.3)))
    return out + p["loud"] * unit(voices)
