"""Water as recordings have it: streams, pouring, drips, splashes, falls.

Each function: parameters `p`, a generator, a length in samples -> waveform [n].
"""

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
    coloured_noise,
    curve,
    decay,
    samples,
    seconds_axis,
    shaped,
    unit,
)

P = Mapping[str, float]
BANK = 48  # different bubbles in a clip; each sounds many times


def bubble(pitch: float, rise: float) -> Array:
    """A bubble in water: a sine that is damped the more, the smaller it is, and rises as it nears the surface.

    Damping after van den Doel, "Physically based models for liquid sounds" (2005): 0.13 / r + 0.0072 r**-1.5 a second,
    with the radius r = 3 / `pitch` metres.
    """
    radius = 3 / pitch
    damping = 0.13 / radius + 0.0072 * radius**-1.5
    t = seconds_axis(samples(min(0.25, 5 / damping)))
    bubble: Array = np.sin(2 * np.pi * pitch * (t + rise * damping * t**2 / 2)) * np.exp(-damping * t)
    return bubble


def _bubbles(rng: Rng, n: int, pitch: float, times: Array, spread: float = 0.5) -> Array:
    """Bubbles at `times` seconds, around `pitch` Hz; the louder, the fewer."""
    bank = [
        bubble(float(np.clip(pitch * np.exp(rng.normal(0, spread)), 250, 6500)), rng.uniform(0, 0.12))
        for _ in range(BANK)
    ]
    out = np.zeros(n)
    for at in times:
        add_at(out, bank[int(rng.integers(BANK))] * rng.exponential(0.7), float(at))
    return out


def stream(p: P, rng: Rng, n: int) -> Array:
    """A brook or a tap in a basin: hundreds of bubbles a second over a soft hiss."""
    times = rng.uniform(0, n / RATE, rng.poisson(p["bubbles"] * n / RATE))
    hiss = band_noise(rng, n, rng.uniform(200, 900), rng.uniform(3000, 7800), 1)
    flow = curve(rng.uniform(0.6, 1.2, max(3, n // RATE * 3)), n)
    return (unit(_bubbles(rng, n, p["pitch"], times, 0.85)) + p["hiss"] * hiss) * flow


def fall(p: P, rng: Rng, n: int) -> Array:
    """A waterfall, a shower, a filling bath: coloured noise with a grain of bubbles, swelling slowly."""
    roar = shaped(coloured_noise(rng, n, p["slope"]), lambda f: 1 / np.sqrt(1 + (f / p["top"]) ** 4))
    times = rng.uniform(0, n / RATE, rng.poisson(400 * n / RATE))
    grain = unit(_bubbles(rng, n, rng.uniform(500, 1800), times, 0.7))
    return (unit(roar) + p["grain"] * grain) * curve(rng.uniform(0.8, 1.15, max(3, n // RATE + 2)), n)


def pouring(p: P, rng: Rng, n: int) -> Array:
    """Water poured into a vessel: its air column sounds higher as it fills, and bubbles gurgle."""
    noise, out, steps = rng.standard_normal(n), np.zeros(n), 8
    glug = 1 + 0.7 * np.sin(2 * np.pi * rng.uniform(3, 9) * seconds_axis(n) + rng.uniform(0, 6)) * (rng.random() < 0.5)
    along = np.linspace(0, steps - 1, n)
    for k in range(steps):  # a gliding resonance, made by cross-fading fixed ones
        centre = p["start"] * p["span"] ** (k / (steps - 1))
        resonance = unit(_column(noise, centre))
        out += np.maximum(0, 1 - np.abs(along - k)) * resonance
    times = rng.uniform(0, n / RATE, rng.poisson(p["bubbles"] * n / RATE))
    return out * glug + 1.2 * unit(_bubbles(rng, n, 2 * p["start"], times)) + 0.25 * band_noise(rng, n, 800, 7000, 1)


def _column(noise: Array, centre: float) -> Array:
    def gain(f: Array) -> Array:
        modes = [0.6**k / (1 + ((f - (2 * k + 1) * centre) / (0.08 * centre)) ** 2) for k in range(3)]
        summed: Array = np.sum(modes, axis=0)
        return summed

    return shaped(noise, gain)


def dripping(p: P, rng: Rng, n: int) -> Array:
    """Drops that fall into still water: a click, then a clear bubble a few hundredths of a second later."""
    out, at = np.zeros(n), rng.uniform(0, 0.2)
    m = samples(0.01)
    while at * RATE < n:
        add_at(out, 0.15 * band_noise(rng, m, 1500, 7000) * decay(m, 0.0003, 0.002), at)
        gain = rng.uniform(0.5, 1.0)
        for k in range(int(rng.choice([1, 1, 2, 3]))):
            drop = bubble(float(np.clip(p["pitch"] * rng.uniform(0.75, 1.4), 300, 5000)), p["rise"])
            add_at(out, drop * gain / (1 + k), at + rng.uniform(0.008, 0.05) * (k + 1))
        at += rng.uniform(0.6, 1.5) / p["rate"]
    return out


def splash(p: P, rng: Rng, n: int) -> Array:
    """Something falls into water: a burst, then bubbles that come up fewer and fewer."""
    out, at = np.zeros(n), rng.uniform(0, 0.3)
    while at * RATE < n:
        m = samples(min(1.5, 5 * p["burst"]))
        body = band_noise(rng, m, 150, rng.uniform(2500, 7500), 1) * decay(m, rng.uniform(0.003, 0.05), p["burst"])
        add_at(out, unit(body), at)
        length = samples(6 * p["burst"] + 0.4)
        times = rng.exponential(2.5 * p["burst"], rng.poisson(p["bubbles"])) + 0.02
        add_at(out, 2 * _bubbles(rng, length, rng.uniform(500, 1800), times, 0.6), at)
        at += rng.uniform(0.5, 2.5)
    return band(out, 60, 7800, 1)
