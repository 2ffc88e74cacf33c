"""Drums as recordings have them: single strokes, loops of kits and machines, drums played by hand, rolls.

Each function: parameters `p`, a generator, a length in samples -> waveform [n].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from .dsp import RATE, Array, Rng, add_at, band, band_noise, decay, modes, phase, samples, seconds_axis, unit

P = Mapping[str, float]
Hit = Callable[[], Array]
MEMBRANE = np.array([1.0, 1.593, 2.135, 2.295, 2.653, 2.917, 3.155, 3.5])  # of a round skin: zeros of Bessel functions
METAL = np.array([1.0, 1.34, 1.52, 1.83, 2.17, 2.51, 3.02, 3.77, 4.61])  # of a plate: dense, in no simple ratio


def stroke(p: P, rng: Rng, n: int) -> Array:
    """One drum or cymbal, struck once or a few times with pauses."""
    hits = (_kick, _snare, _tom, _hat, _cymbal, _clap, _tom, _kick)
    hit = hits[int(rng.integers(len(hits)))](p["pitch"], p["ring"], p["snap"], rng)
    out, at = np.zeros(n), rng.uniform(0, 0.05)
    again = rng.uniform(0.4, 1.6)
    while at * RATE < n:
        add_at(out, hit * rng.uniform(0.6, 1.0), at)
        at += n if rng.random() < 0.5 else again * rng.uniform(0.9, 1.1)
    return out


def loop(p: P, rng: Rng, n: int) -> Array:
    """A bar of sixteenths, repeated: kick, snare, hats, sometimes toms, cymbals and claps; every drum of its own."""
    step = 60 / p["tempo"] / 4 * float(rng.choice((1.0, 1.0, 2.0)))
    ring, snap, late = p["ring"], rng.uniform(0.1, 1.0), rng.uniform(0, 0.3) * (rng.random() < 0.4)
    pitch = float(rng.uniform(45, 110))
    kick, snare, hat = _kick(pitch, ring, snap, rng), _snare(pitch * 3, ring, snap, rng), _hat(pitch, ring, snap, rng)
    more = (_tom, _clap, _cymbal)[int(rng.integers(3))](pitch * 1.7, ring, snap, rng)
    chances = (
        (kick, [0.95 if k % 8 == 0 else 0.2 if k % 2 == 0 else 0.08 for k in range(16)], 1.2),
        (snare, [0.95 if k % 8 == 4 else 0.07 for k in range(16)], 1.0),
        (hat, [p["hats"] if k % 2 == 0 else 0.4 * p["hats"] for k in range(16)], 0.45),
        (more, [0.12 * float(rng.random() < 0.5)] * 16, 0.7),
    )
    bar = [(hit, [rng.random() < c for c in row], gain * rng.uniform(0.4, 1.1)) for hit, row, gain in chances]
    out, at, k = np.zeros(n), rng.uniform(0, 0.2), int(rng.choice((0, 0, 4, 8)))
    while at * RATE < n:
        for hit, row, gain in bar:
            if row[k % 16]:
                add_at(out, hit * gain * rng.uniform(0.75, 1.0), at)
        at, k = at + step * (1 + late * (1 if k % 2 == 0 else -1)), k + 1
    return out


def by_hand(p: P, rng: Rng, n: int) -> Array:
    """Two or three skins of one size each, struck open or damped: bongos, congas, a tabla, a frame drum."""
    pitches = p["pitch"] * np.array([1.0, rng.uniform(1.2, 1.6), rng.uniform(0.6, 0.85)])
    hits = [_skin(pitch, p["ring"] * open_, 0.6, rng) for pitch in pitches for open_ in (1.0, 0.35)]
    out, at, beat = np.zeros(n), rng.uniform(0, 0.1), 60 / p["tempo"] / 2
    bar = [int(rng.integers(len(hits))) if rng.random() < 0.75 else -1 for _ in range(8)]
    k = 0
    while at * RATE < n:
        if bar[k % 8] >= 0:
            add_at(out, hits[bar[k % 8]] * rng.uniform(0.5, 1.0), at)
        at, k = at + beat * rng.uniform(0.96, 1.04), k + 1
    return out


def roll(p: P, rng: Rng, n: int) -> Array:
    """Strokes faster than one can count, that swell or fade: a snare, a tom or a kettle drum."""
    hit = (_snare, _tom, _skin)[int(rng.integers(3))](p["pitch"], p["ring"], 0.5, rng)
    out, at = np.zeros(n), rng.uniform(0, 0.1)
    first, last = rng.uniform(0.2, 1.0, 2)
    while at * RATE < n:
        share = at * RATE / n
        add_at(out, hit * (first + (last - first) * share) * rng.uniform(0.7, 1.0), at)
        at += rng.uniform(0.9, 1.1) / p["rate"]
    return out


def _kick(pitch: float, ring: float, snap: float, rng: Rng) -> Array:
    """A bass drum: a tone that falls to its pitch, with the beater's click."""
    fall, m = rng.uniform(0.01, 0.05), samples(min(1.2, 0.1 + 4 * ring))
    t = seconds_axis(m)
    pitch = 35 + pitch % 80
    tone = np.sin(phase(pitch * (1 + rng.uniform(0.5, 4) * np.exp(-t / fall)))) * decay(m, 0.001, 0.4 * ring + 0.04)
    return unit(tone + 0.3 * snap * _tick(m, rng, 1500, 6000, 0.004)) * 0.5


def _snare(pitch: float, ring: float, snap: float, rng: Rng) -> Array:
    """A skin and the wires below it."""
    m = samples(0.12 + min(0.5, 2 * ring))
    wires = band_noise(rng, m, rng.uniform(500, 2000), rng.uniform(4500, 7900), 1) * decay(m, 0.001, 0.3 * ring + 0.03)
    return unit(wires * (0.3 + snap) + _skin(150 + pitch % 150, 0.3 * ring, 0.3, rng, m)) * 0.5


def _tom(pitch: float, ring: float, snap: float, rng: Rng) -> Array:
    return _skin(70 + pitch % 200, 0.6 * ring + 0.05, snap, rng)


def _hat(pitch: float, ring: float, snap: float, rng: Rng) -> Array:
    """Two small cymbals, closed or half open."""
    m = samples(0.5)
    fall = rng.uniform(0.01, 0.05) if rng.random() < 0.7 else 0.3 * ring + 0.05
    return unit(band_noise(rng, m, rng.uniform(3500, 6500), 7950, 3) * decay(m, 0.0005, fall)) * 0.3


def _cymbal(pitch: float, ring: float, snap: float, rng: Rng) -> Array:
    m = samples(1.5)
    plate = modes(m, METAL * rng.uniform(500, 1600), np.full(9, 0.5 * ring + 0.2), rng.uniform(0.2, 1, 9))
    hiss = band_noise(rng, m, rng.uniform(2000, 4500), 7950, 1) * decay(m, 0.002, 0.7 * ring + 0.15)
    return unit(hiss + unit(plate) * rng.uniform(0, 0.3)) * 0.4


def _clap(pitch: float, ring: float, snap: float, rng: Rng) -> Array:
    """The clap of a drum machine: three bursts close together, the last one rings."""
    m = samples(0.3)
    out = np.zeros(m)
    for k in range(3):
        add_at(out, _tick(m, rng, 800, 4000, 0.006 if k < 2 else 0.2 * ring + 0.03), k * rng.uniform(0.008, 0.014))
    return unit(out) * 0.4


def _skin(pitch: float, ring: float, snap: float, rng: Rng, m: int = 0) -> Array:
    """A struck membrane: its modes, the higher ones shorter, and the hand or stick."""
    m = m or samples(min(1.5, 0.15 + 5 * ring))
    gains = rng.uniform(0.2, 1.0, len(MEMBRANE)) * MEMBRANE**-1.5
    tone = unit(modes(m, MEMBRANE * pitch, ring * MEMBRANE**-1.2, gains))
    return unit(band(tone, 0, 5000, 1) + snap * 0.5 * _tick(m, rng, 400, 5000, 0.008)) * 0.5


def _tick(m: int, rng: Rng, low: float, high: float, fall: float) -> Array:
    return band_noise(rng, m, low, high, 1) * decay(m, 0.0005, fall)
