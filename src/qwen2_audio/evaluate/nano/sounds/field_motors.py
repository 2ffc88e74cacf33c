"""Engines as recordings have them: idling, starting, passing, rotors, electric.

Each function: parameters `p`, a generator, a length in samples -> waveform [n].
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .dsp import RATE, Array, Rng, band_noise, buzz, coloured_noise, curve, phase, seconds_axis, shaped, unit

P = Mapping[str, float]


def _firing(rng: Rng, rate: Array, tilt: float, rough: float) -> Array:
    """Bangs at `rate` Hz [n], each of its own strength, through an exhaust; `tilt`: how fast the spectrum falls."""
    turn = phase(rate) / (2 * np.pi)
    cylinder: np.ndarray = turn.astype(int)
    strength = (
        1 + rough * rng.uniform(-1, 1, 4)[cylinder % 4] + 0.5 * rough * rng.standard_normal(cylinder[-1] + 2)[cylinder]
    )
    within = turn - cylinder
    bang = np.exp(-within * rng.uniform(4, 14)) * strength
    noise = rng.standard_normal(len(rate)) * np.exp(-within * rng.uniform(2, 10))
    mixed = unit(bang - np.mean(bang)) + rng.uniform(0.2, 1.2) * unit(noise)
    pipes = [(c, c * rng.uniform(0.3, 0.8), rng.uniform(0.3, 1)) for c in rng.uniform(60, 2500, 4)]

    def gain(f: Array) -> Array:
        box = 0.4 + sum(g / (1 + ((f - c) / (w / 2)) ** 2) for c, w, g in pipes)
        tilted: Array = box * (np.maximum(f, 40) / 200) ** -tilt * (f > 25)
        return tilted

    return unit(shaped(mixed, gain))


def idling(p: P, rng: Rng, n: int) -> Array:
    """A car, a lorry, a mower: it idles, or somebody plays with the pedal; fan and valves over it."""
    revs = p["rate"] * curve(1 + p["rev"] * rng.uniform(-0.3, 1.0, max(3, n // RATE + 2)), n)
    out = _firing(rng, revs, p["tilt"], rng.uniform(0.1, 0.8))
    valves = (
        band_noise(rng, n, rng.uniform(800, 2500), 7500, 1) * (1 + np.sin(phase(revs * rng.choice([0.5, 1, 2])))) ** 2
    )
    return out + rng.uniform(0, 0.5) * unit(valves) + rng.uniform(0, 0.4) * coloured_noise(rng, n, 1.0)


def starting(p: P, rng: Rng, n: int) -> Array:
    """The starter whinnies, the engine catches with a roar and settles; sometimes it stops again."""
    t, caught = seconds_axis(n), rng.uniform(0.15, 0.5) * n / RATE
    whinny = buzz(p["starter"] * (1 + 0.12 * np.sin(2 * np.pi * p["turns"] * t)), 20, 0.7) + 0.6 * rng.standard_normal(
        n
    )
    whinny *= 0.35 + np.maximum(0, np.sin(2 * np.pi * p["turns"] * t))
    roar = p["rate"] * (1 + 1.6 * np.exp(-np.maximum(0, t - caught - 0.2) / 0.5))
    running = _firing(rng, roar, rng.uniform(0.2, 1.5), rng.uniform(0.2, 0.8)) * np.clip((t - caught) / 0.08, 0, 1)
    if rng.random() < 0.3:
        running *= np.clip((rng.uniform(0.8, 1) * n / RATE - t) / 0.3, 0, 1)
    return 0.6 * unit(whinny) * (t < caught) + running * (0.6 + np.exp(-np.maximum(0, t - caught) / 0.6))


def passing(p: P, rng: Rng, n: int) -> Array:
    """A car, moped or racer goes by: louder, then lower and away, with the hiss of its tyres."""
    t = seconds_axis(n)
    moment, near = rng.uniform(0.2, 0.8) * n / RATE, rng.uniform(0.3, 1.5)
    away = (t - moment) / near
    shift = 1 - p["speed"] * away / np.sqrt(1 + away**2)
    loud = 1 / np.sqrt(1 + away**2)
    motor = _firing(rng, p["rate"] * shift, rng.uniform(0.0, 0.8), rng.uniform(0, 0.4))
    whine = buzz(p["rate"] * shift * rng.choice([1, 2, 3]), 25, rng.uniform(0.5, 1.1))
    tyres = band_noise(rng, n, 300, rng.uniform(2500, 7000), 1)
    return (motor + rng.uniform(0, 1.2) * unit(whine) + rng.uniform(0, 0.8) * tyres) * loud ** rng.uniform(0.7, 1.6)


def rotor(p: P, rng: Rng, n: int) -> Array:
    """A helicopter or a propeller: thumps of air some ten or twenty times a second, a turbine behind."""
    turn = phase(p["blades"] * curve(rng.uniform(0.95, 1.05, 4), n)) / (2 * np.pi) % 1
    thump = np.exp(-turn * p["sharp"]) * shaped(
        rng.standard_normal(n), lambda f: (np.maximum(f, 40) / 100) ** -p["tilt"]
    )
    turbine = buzz(np.full(n, rng.uniform(500, 2500)), 3, 1.0)
    return unit(thump) + rng.uniform(0, 0.25) * turbine + 0.25 * coloured_noise(rng, n, 1.2)


def electric(p: P, rng: Rng, n: int) -> Array:
    """A vacuum cleaner, a drill, a fan: a steady whine with harmonics in rushing air; it runs up at first."""
    t = seconds_axis(n)
    run_up = 1 - np.exp(-t / rng.uniform(0.1, 0.6)) * (rng.random() < 0.4)
    load = curve(1 + rng.uniform(0, 0.06) * rng.standard_normal(max(3, n // RATE * 2)), n)
    whine = buzz(p["pitch"] * run_up * load + 1, 25, rng.uniform(0.6, 1.4))
    air = shaped(coloured_noise(rng, n, rng.uniform(0, 1)), lambda f: 1 / (1 + (f / p["air"]) ** 2))
    hum = buzz(np.full(n, 100.0), 8, 1.0)
    blended: Array = p["whine"] * unit(whine) + unit(air) + rng.uniform(0, 0.3) * unit(hum)
    blended *= np.maximum(run_up, 0.1)
    return blended
