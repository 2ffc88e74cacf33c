"""Things made to be heard, and machines: siren, alarm, telephone, horn, bell, clock, engine."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .dsp import (
    RATE,
    Array,
    Rng,
    add_at,
    band,
    band_noise,
    buzz,
    curve,
    decay,
    modes,
    phase,
    samples,
    seconds_axis,
    swell,
    unit,
)

P = Mapping[str, float]


def siren(p: P, rng: Rng, n: int) -> Array:
    """Wail, yelp or two-tone: a strong tone that keeps gliding or switching between two heights."""
    t = seconds_axis(n) + rng.uniform(0, p["period"])
    turn = t / p["period"] % 1
    style = rng.choice(["wail", "yelp", "two-tone"], p=[0.5, 0.25, 0.25])
    if style == "two-tone":
        place_in_turn = (turn < 0.5).astype(float)
        place_in_turn = np.convolve(place_in_turn, np.ones(200) / 200, "same")
        freq = p["low"] * (1 + place_in_turn * rng.uniform(0.25, 0.45))
    else:
        speed = 1 if style == "wail" else rng.uniform(5, 9)
        turn = t * speed / p["period"] % 1
        rise = rng.uniform(0.3, 0.6)
        height = np.where(turn < rise, turn / rise, (1 - turn) / (1 - rise))
        freq = p["low"] * (p["span"] ** (np.sin(height * np.pi / 2)))
    return buzz(freq, 6, rng.uniform(1.0, 2.0)) * swell(n, 0.05, 0.05)


def alarm(p: P, rng: Rng, n: int) -> Array:
    """Electronic beeps: one pitch, hard edges, steady or in groups."""
    group, out, at = int(rng.choice([1, 1, 2, 3, 4])), np.zeros(n), rng.uniform(0, 0.3)
    m = samples(p["on"])
    harmonics = int(rng.choice([1, 5, 9]))
    beep = sum(
        np.sin(2 * np.pi * p["pitch"] * k * seconds_axis(m)) / k
        for k in range(1, harmonics + 1, 2)
        if p["pitch"] * k < 7600
    )
    beep = beep * swell(m, 0.004, 0.004)
    while at * RATE < n:
        for _ in range(group):
            add_at(out, beep, at)
            at += p["on"] + p["off"]
        at += p["off"] * (0 if group == 1 else 3)
    return out


def phone(p: P, rng: Rng, n: int) -> Array:
    """A telephone: a fast warble of two pitches, rung and paused."""
    bells, out, at = rng.random() < 0.5, np.zeros(n), rng.uniform(0, 0.4)
    m = samples(p["ring"])
    while at * RATE < n:
        add_at(out, (_bell_ring if bells else _warble)(p, rng, m), at)
        at += p["ring"] + p["pause"]
        if rng.random() < 0.3:
            add_at(out, (_bell_ring if bells else _warble)(p, rng, m), at - p["pause"] + 0.25)
            at += 0.25 + p["ring"]
    return out


def _warble(p: P, rng: Rng, n: int) -> Array:
    high = (seconds_axis(n) * p["warble"] % 1) < 0.5
    freq = np.where(high, p["pitch"] * 1.25, p["pitch"])
    return buzz(freq, 5, 1.3) * swell(n, 0.01, 0.03)


def _bell_ring(p: P, rng: Rng, n: int) -> Array:
    """Two small gongs hit in turn by a clapper, about twenty times a second."""
    out, at = np.zeros(n), 0.0
    m = samples(0.35)
    gongs = [
        modes(m, [f, 2.7 * f, 4.9 * f], [0.12, 0.07, 0.03], [1, 0.6, 0.3]) for f in (p["pitch"] * 1.2, p["pitch"] * 1.5)
    ]
    k = 0
    while at * RATE < n:
        add_at(out, gongs[k % 2] * rng.uniform(0.8, 1.0), at)
        at, k = at + 1 / p["warble"] * rng.uniform(0.95, 1.05), k + 1
    return out


def horn(p: P, rng: Rng, n: int) -> Array:
    """A car horn: two rich tones a third apart, one or more honks."""
    out, at, ratio = np.zeros(n), rng.uniform(0, 0.4), rng.choice([1.2, 1.25, 1.26])
    while at * RATE < n:
        m = samples(p["honk"] * rng.uniform(0.6, 1.5))
        bend = 1 - 0.03 * np.exp(-seconds_axis(m) / 0.03)
        both = buzz(p["pitch"] * bend, 18, p["soft"]) + buzz(p["pitch"] * ratio * bend, 15, p["soft"])
        add_at(out, unit(band(both, 250, 3500, 1)) * swell(m, 0.02, 0.05), at)
        at += m / RATE + rng.uniform(0.08, 0.9)
    return out


def bell(p: P, rng: Rng, n: int) -> Array:
    """A church or hand bell: inharmonic partials that ring on, struck slowly."""
    partials = (
        np.array([0.5, 1.0, 1.19, 1.5, 2.0, 2.51, 2.66, 3.01, 4.1, 5.4]) * p["pitch"] * rng.uniform(0.995, 1.005, 10)
    )
    fall = p["ring"] / np.arange(1.0, 11.0) ** 0.6
    gains = np.array([0.5, 0.8, 0.8, 0.4, 1.0, 0.3, 0.35, 0.4, 0.25, 0.15]) * rng.uniform(0.6, 1.3, 10)
    out, at = np.zeros(n), rng.uniform(0, 0.3)
    while at * RATE < n:
        strike = modes(min(n, samples(4 * p["ring"])), partials, fall, gains)
        add_at(out, strike * rng.uniform(0.7, 1.0), at)
        at += p["every"] * rng.uniform(0.95, 1.05)
    return out


def clock(p: P, rng: Rng, n: int) -> Array:
    """Tick, tock: very short clicks, strictly regular, two colours in turn."""
    out, at, k = np.zeros(n), rng.uniform(0, p["period"]), 0
    colour = rng.uniform(0.75, 0.95)
    m = samples(0.05)
    while at * RATE < n:
        f = p["pitch"] * (1 if k % 2 else colour)
        tick = modes(m, [f, 1.7 * f, 0.35 * f], [0.004, 0.002, 0.008], [1.0, 0.7, 0.4])
        tick += 0.6 * band_noise(rng, m, 1500, 7500) * decay(m, 0.0003, 0.0015)
        add_at(out, tick * (1.0 if k % 2 else 0.8), at)
        add_at(out, 0.35 * tick, at + p["echo"])
        at, k = at + p["period"], k + 1
    return out


def engine(p: P, rng: Rng, n: int) -> Array:
    """A motor: many harmonics of a low firing rate, uneven, revving up and down."""
    points = max(3, n // RATE + 2)
    revs = p["rate"] * curve(1 + p["rev"] * rng.uniform(-0.5, 1.0, points), n)
    limp = 1 + 0.35 * np.sin(phase(revs / 2) + rng.uniform(0, 6)) + 0.2 * np.sin(phase(revs / 4))
    firing = buzz(revs, 60, 0.6) * limp
    rattle = band_noise(rng, n, 150, 2500, 1) * (0.5 + 0.5 * np.sin(phase(revs))) ** 3
    return band(unit(firing), 30, p["muffler"], 1) + p["rattle"] * rattle
