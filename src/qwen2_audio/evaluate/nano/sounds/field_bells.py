"""Bells as recordings have them: church, hand, counter, chimes, gongs, cowbells.

Each function: parameters `p`, a generator, a length in samples -> waveform [n].
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .dsp import RATE, Array, Rng, add_at, band_noise, decay, modes, samples, unit

P = Mapping[str, float]
CHURCH = np.array([0.5, 1.0, 1.19, 1.5, 2.0, 2.51, 2.66, 3.01, 4.1, 5.4])  # hum, prime, tierce, quint, nominal, ...
BAR = np.array([1.0, 2.76, 5.4, 8.93])  # of a bar that is free at both ends
TUBE = np.array([2.0, 3.0, 4.2, 5.4, 6.8])  # of a chime, as multiples of the pitch one hears


def _struck(rng: Rng, n: int, freqs: Array, ring: float, fall: float, click: float) -> Array:
    """One stroke: every mode a close pair that beats, the high ones shorter by `fall`, a click of the clapper."""
    relative = freqs / freqs[0]
    rings = ring * relative**-fall
    gains = rng.uniform(0.25, 1.0, len(freqs)) * relative ** -rng.uniform(0, 0.6)
    both = np.concatenate([freqs, freqs * (1 + rng.uniform(0.0003, 0.004, len(freqs)))])
    m = min(n, samples(min(9.0, 6 * ring)))
    sound = modes(m, both, np.tile(rings, 2), np.concatenate([gains, gains * rng.uniform(0.1, 0.9, len(freqs))]))
    sound = unit(sound)
    k = min(m, samples(0.05))
    sound[:k] += click * band_noise(rng, k, 800, 7500, 1) * decay(k, 0.0005, 0.004) * 3
    return sound


def _strokes(rng: Rng, n: int, freqs: Array, p: P, every: float, uneven: float, fall: float) -> Array:
    out, at = np.zeros(n), rng.uniform(0, 0.15)
    stroke = _struck(rng, n, freqs, p["ring"], fall, rng.uniform(0, 0.3))
    while at * RATE < n:
        add_at(out, stroke * rng.uniform(0.5, 1.0), at)
        at += every * rng.uniform(1 - uneven, 1 + uneven)
    return out


def church(p: P, rng: Rng, n: int) -> Array:
    """One to four bells of a tower, each at its own pace."""
    out = np.zeros(n)
    for k in range(int(rng.choice([1, 1, 2, 4]))):
        freqs = CHURCH * p["pitch"] * (1.0, 1.19, 1.33, 1.5)[k] * rng.uniform(0.995, 1.005, len(CHURCH))
        out += _strokes(rng, n, freqs, p, p["every"], 0.05, 0.6)
    return out


def hand(p: P, rng: Rng, n: int) -> Array:
    """A small bell of few clear modes, struck once or shaken."""
    freqs = p["pitch"] * np.array([1.0, rng.uniform(1.9, 2.8), rng.uniform(2.9, 3.9), rng.uniform(4.2, 5.8)])
    shaken = rng.random() < 0.4
    return _strokes(rng, n, freqs[freqs < 7800], p, 1 / p["rate"] if shaken else rng.uniform(1.0, 5.0), 0.3, 0.8)


def chime(p: P, rng: Rng, n: int) -> Array:
    """A door chime, tubes or glockenspiel: two to six notes of a chord, one after the other or in a wind."""
    steps = np.array([1.0, 1.25, 1.5, 0.75, 2.0, 1.125])[: int(rng.integers(2, 7))]
    series = BAR if rng.random() < 0.5 else TUBE / 2
    strokes = [_struck(rng, n, p["pitch"] * s * series, p["ring"], 1.0, 0.2) for s in steps]
    out, at = np.zeros(n), rng.uniform(0, 0.15)
    order = rng.permutation(len(steps)) if rng.random() < 0.5 else np.arange(len(steps))[::-1]
    k = 0
    while at * RATE < n and (k < len(order) or rng.random() < 0.6):
        add_at(out, strokes[order[k % len(order)]] * rng.uniform(0.5, 1.0), at)
        at, k = at + p["every"] * rng.uniform(0.7, 1.4), k + 1
    return out


def gong(p: P, rng: Rng, n: int) -> Array:
    """A gong or bowl: some eighty close modes; the high ones bloom late and go first."""
    count = 80
    freqs = np.sort(p["pitch"] * (1 + rng.exponential(p["dense"], count)))
    freqs = np.concatenate([[p["pitch"]], freqs[freqs < 7000]])
    out, at = np.zeros(n), rng.uniform(0, 0.15)
    stroke = _struck(rng, n, freqs, p["ring"], rng.uniform(0.5, 1.1), rng.uniform(0, 0.3))
    while at * RATE < n:
        add_at(out, stroke, at)
        at += rng.uniform(1.5, 6.0)
    return out


def cowbell(p: P, rng: Rng, n: int) -> Array:
    """A folded sheet: two strong modes that die soon, clanked without a beat; sometimes a herd."""
    out = np.zeros(n)
    for _ in range(int(rng.choice([1, 1, 2, 3]))):
        pitch = p["pitch"] * rng.uniform(0.85, 1.2)
        freqs = pitch * np.array([1.0, rng.uniform(1.4, 1.6), rng.uniform(2.2, 2.9), rng.uniform(3.3, 4.5)])
        out += _strokes(rng, n, freqs, p, 1 / p["rate"], 0.5, 0.4)
    return out


def sleigh(p: P, rng: Rng, n: int) -> Array:
    """Jingles: many tiny bells shaken together in a rhythm."""
    out, at = np.zeros(n), rng.uniform(0, 0.1)
    m = samples(0.25)
    bank = [modes(m, p["pitch"] * rng.uniform(0.8, 1.6, 2), rng.uniform(0.02, 0.08, 2), [1.0, 0.6]) for _ in range(12)]
    while at * RATE < n:
        for _ in range(int(rng.integers(3, 12))):
            add_at(out, bank[int(rng.integers(12))] * rng.uniform(0.2, 1.0), at + rng.exponential(0.02))
        at += rng.uniform(0.8, 1.2) / p["rate"]
    return out
