"""What nano must not name: noise, silence, a plain tone, a voice, and sounds it does not know."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .dsp import (
    RATE,
    Array,
    Rng,
    add_at,
    band_noise,
    buzz,
    coloured_noise,
    curve,
    decay,
    modes,
    phase,
    resonant,
    samples,
    seconds_axis,
    swell,
    unit,
)

P = Mapping[str, float]
VOWELS = (
    (730, 1090, 2440),
    (270, 2290, 3010),
    (300, 870, 2240),
    (530, 1840, 2480),
    (570, 840, 2410),
    (490, 1350, 1690),
)


def noise(p: P, rng: Rng, n: int) -> Array:
    """Steady noise of any colour, sometimes band-limited."""
    if rng.random() < 0.3:
        low = rng.uniform(50, 1500)
        return band_noise(rng, n, low, low * rng.uniform(3, 8), 1)
    return coloured_noise(rng, n, p["slope"])


def silence(p: P, rng: Rng, n: int) -> Array:
    """Digital silence, or a floor so low that nobody hears it (the mixer leaves its level alone)."""
    if rng.random() < 0.5:
        return np.zeros(n)
    return 10 ** (p["floor_db"] / 20) * coloured_noise(rng, n, rng.uniform(0, 1.5))


def tone(p: P, rng: Rng, n: int) -> Array:
    """One steady pitch from start to end: sine, or with a few harmonics."""
    return buzz(np.full(n, p["pitch"]), int(rng.choice([1, 1, 1, 4])), 1.5) * swell(n, 0.02, 0.02)


def voice(p: P, rng: Rng, n: int) -> Array:
    """Somebody talking without words: voiced syllables with moving formants, hisses, pauses."""
    out, at = np.zeros(n), rng.uniform(0, 0.3)
    tract, last = rng.uniform(0.95, 1.2) * (p["pitch"] / 120) ** 0.15, VOWELS[0]
    while at * RATE < n:
        phrase = rng.integers(3, 10)
        for k in range(phrase):
            length = rng.uniform(0.6, 1.6) / p["rate"]
            vowel = VOWELS[rng.integers(len(VOWELS))]
            fall = 1.15 - 0.3 * k / phrase
            add_at(out, _syllable(p["pitch"] * fall, tract, last, vowel, rng, samples(length)), at)
            if rng.random() < 0.4:
                m = samples(rng.uniform(0.05, 0.12))
                low = rng.uniform(1500, 4000)
                add_at(out, rng.uniform(0.1, 0.35) * band_noise(rng, m, low, low + 3500) * np.hanning(m), at - 0.05)
            last, at = vowel, at + length * rng.uniform(0.8, 1.0)
        at += rng.uniform(0.15, 0.7)
    return out


def _syllable(pitch: float, tract: float, start: tuple, end: tuple, rng: Rng, n: int) -> Array:
    f0 = pitch * curve(rng.uniform(0.93, 1.1, 4), n) * (1 + 0.01 * rng.standard_normal(n))
    source = buzz(f0, 40, 1.0) + 0.03 * rng.standard_normal(n)
    widths, gains = (90, 120, 180), (1.0, 0.55, 0.25)
    a, b = (
        resonant(source, [(f * tract, w, g) for f, w, g in zip(v, widths, gains, strict=True)]) for v in (start, end)
    )
    move = curve([0.0, 0.8, 1.0], n)
    return unit((1 - move) * a + move * b) * swell(n, 0.03, 0.06) * rng.uniform(0.5, 1.0)


def _data_tones(rng: Rng, n: int) -> Array:
    """Random pitches switched many times a second, like a modem."""
    pitches, rate = rng.uniform(400, 3000, 8), rng.uniform(25, 60)
    steps = rng.integers(0, 8, int(n / RATE * rate) + 2)
    return buzz(pitches[steps[(seconds_axis(n) * rate).astype(int)]], 3, 1.0)


def _zaps(rng: Rng, n: int) -> Array:
    """Falling square-wave sweeps, as in an old video game."""
    out, at = np.zeros(n), 0.1
    while at * RATE < n:
        m = samples(rng.uniform(0.12, 0.4))
        freq = rng.uniform(1500, 4000) * np.exp(-seconds_axis(m) * rng.uniform(8, 20)) + 60
        add_at(out, np.sign(np.sin(phase(freq))) * decay(m, 0.002, 0.15), at)
        at += rng.uniform(0.15, 0.7)
    return out


def _whooshes(rng: Rng, n: int) -> Array:
    """Bands of noise that swell up and break off."""
    out, at = np.zeros(n), 0.0
    while at * RATE < n:
        m = samples(rng.uniform(0.3, 0.9))
        low = rng.uniform(300, 3000)
        add_at(out, band_noise(rng, m, low, low * 1.7, 3) * np.linspace(0, 1, m) ** 3, at)
        at += m / RATE + rng.uniform(0.05, 0.5)
    return out


def _drone(rng: Rng, n: int) -> Array:
    """A thick detuned chord, shaken quickly."""
    base = rng.uniform(90, 300)
    chord = np.zeros(n)
    for r in (1.0, 1.33, 1.414, 1.89):
        chord += buzz(np.full(n, base * r * rng.uniform(0.99, 1.01)), 12, 0.8)
    return chord * (1 + 0.8 * np.sin(2 * np.pi * rng.uniform(6, 14) * seconds_axis(n)))


def _scrape(rng: Rng, n: int) -> Array:
    """Saw-like strokes back and forth."""
    rate = rng.uniform(1.5, 4)
    stroke: Array = np.abs(np.sin(np.pi * rate * seconds_axis(n))) ** 2
    grain: Array = (np.sin(2 * np.pi * rng.uniform(60, 160) * seconds_axis(n)) > 0.3).astype(np.float64)
    return band_noise(rng, n, 900, 5000) * stroke * (0.3 + grain)


def _springs(rng: Rng, n: int) -> Array:
    """Boing: a wobbling tone that dies away. Never trained on."""
    out, at = np.zeros(n), 0.1
    while at * RATE < n:
        m = samples(1.0)
        wobble = 1 + 0.4 * np.sin(2 * np.pi * rng.uniform(9, 16) * seconds_axis(m))
        add_at(out, buzz(rng.uniform(150, 400) * wobble, 6, 1.0) * decay(m, 0.003, 0.3), at)
        at += rng.uniform(0.5, 1.2)
    return out


def _backwards(rng: Rng, n: int) -> Array:
    """Struck bodies played backwards. Never trained on."""
    out, at = np.zeros(n), 0.0
    while at * RATE < n:
        m = samples(rng.uniform(0.3, 0.8))
        add_at(out, modes(m, rng.uniform(200, 3000, 6), [m / RATE / 3] * 6, rng.uniform(0.3, 1, 6))[::-1], at)
        at += m / RATE + rng.uniform(0.05, 0.4)
    return out


STRANGE = (_data_tones, _zaps, _whooshes, _drone, _scrape)
STRANGER = (_springs, _backwards)


def unknown(p: P, rng: Rng, n: int) -> Array:
    """A sound from outside nano's world."""
    return STRANGE[rng.integers(len(STRANGE))](rng, n)


def unheard(p: P, rng: Rng, n: int) -> Array:
    """A sound from outside nano's world, of a sort that training never had: for the test only."""
    return STRANGER[rng.integers(len(STRANGER))](rng, n)
