"""Alarms and telephones as recordings have them. Parameters, generator, samples -> waveform [n]."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .dsp import RATE, Array, Rng, add_at, band, buzz, decay, modes, phase, samples, seconds_axis, swell, unit

P = Mapping[str, float]
SCALE = 2 ** (np.array([0, 2, 4, 5, 7, 9, 11, 12, 14, 16]) / 12)
ROWS, COLUMNS = (697, 770, 852, 941), (1209, 1336, 1477)  # Hz of a keypad's tones, ITU-T Q.23


def _voice(rng: Rng, freq: Array) -> Array:
    """An electronic tone at `freq` Hz [n]: sine, square, pulse or piezo."""
    sort = rng.integers(4)
    if sort == 0:
        return np.sin(phase(freq))
    if sort == 1:
        return band(np.sign(np.sin(phase(freq))), 0, 7000)
    if sort == 2:
        return buzz(freq, 20, rng.uniform(0.2, 0.8))
    return np.sin(phase(freq)) + rng.uniform(0.2, 1) * np.sin(3 * phase(freq)) * (freq < 2500)


def _repeated(rng: Rng, n: int, piece: Array, off: float, group: int, rest: float) -> Array:
    out, at = np.zeros(n), rng.uniform(0, 0.2)
    while at * RATE < n:
        for _ in range(group):
            add_at(out, piece, at)
            at += len(piece) / RATE + off
        at += rest
    return out


def beeps(p: P, rng: Rng, n: int) -> Array:
    """A watch, an oven, a smoke detector: beeps alone or in groups, often very high."""
    m = samples(p["on"])
    beep = _voice(rng, np.full(m, p["pitch"])) * swell(m, 0.003, 0.003)
    group = int(rng.choice([1, 2, 3, 4]))
    return _repeated(rng, n, beep, p["off"], group, 0.0 if group == 1 else rng.uniform(0.2, 1.2))


def whoop(p: P, rng: Rng, n: int) -> Array:
    """A sweep that begins again and again: burglar alarm, ship, game."""
    m = samples(p["length"])
    glide = np.linspace(0, 1, m) ** rng.uniform(0.6, 1.5)
    freq = p["low"] * p["span"] ** (glide if rng.random() < 0.75 else 1 - glide)
    return _repeated(rng, n, _voice(rng, freq) * swell(m, 0.005, 0.01), rng.uniform(0, 0.15), 1, 0.0)


def hi_lo(p: P, rng: Rng, n: int) -> Array:
    """Two pitches in quick turn, as an alarm clock or a level crossing has them."""
    high = (seconds_axis(n) * p["rate"] % 1) < 0.5
    freq = np.where(high, p["pitch"] * p["step"], p["pitch"])
    return _voice(rng, freq) * swell(n, 0.003, 0.003)


def buzzer(p: P, rng: Rng, n: int) -> Array:
    """A harsh low buzz, in bursts or held."""
    m = samples(p["on"])
    buzzing = buzz(np.full(m, p["pitch"]), 60, rng.uniform(0, 0.5)) * (
        1 + 0.4 * np.sin(2 * np.pi * 50 * seconds_axis(m))
    )
    return _repeated(rng, n, unit(buzzing) * swell(m, 0.004, 0.01), p["off"], int(rng.choice([1, 1, 2, 3])), 0.1)


def gongs(p: P, rng: Rng, n: int) -> Array:
    """An old telephone: a clapper between two small gongs whose many modes ring into each other."""
    m = samples(p["ring"])
    ring, at, k, tail = np.zeros(m + samples(0.5)), 0.0, 0, samples(0.6)
    strikes = []
    for pitch in (p["pitch"], p["pitch"] * rng.uniform(1.06, 1.35)):
        freqs = pitch * np.array([1.0, 1.52, 2.4, 2.9, 3.7, 4.6, 5.9])
        strikes.append(modes(tail, freqs, rng.uniform(0.05, 0.4, 7), rng.uniform(0.1, 1, 7)))
    while at * RATE < m:
        add_at(ring, strikes[k % 2] * rng.uniform(0.7, 1.0), at)
        at, k = at + rng.uniform(0.97, 1.03) / p["rate"], k + 1
    return _repeated(rng, n, unit(ring), rng.uniform(0.05, 0.3), int(rng.choice([1, 1, 2])), rng.uniform(0.6, 3))


def warble(p: P, rng: Rng, n: int) -> Array:
    """A desk telephone: two or three pitches many times a second, in rings."""
    m = samples(p["ring"])
    chord = p["pitch"] * np.array([1.0, rng.uniform(1.15, 1.35), rng.uniform(1.4, 1.7)])[: int(rng.choice([2, 2, 3]))]
    turn = (seconds_axis(m) * p["rate"]).astype(int) % len(chord)
    ring = _voice(rng, chord[turn]) * swell(m, 0.01, 0.03)
    return _repeated(rng, n, ring, rng.uniform(0.1, 0.4), int(rng.choice([1, 1, 2])), rng.uniform(0.5, 3))


def exchange(p: P, rng: Rng, n: int) -> Array:
    """What one hears in the receiver: ringing, busy or dial tone; sums of two sines."""
    pair = ((440, 480), (400, 450), (425, 425), (350, 440), (480, 620))[int(rng.integers(5))]
    m = samples(p["on"])
    t = seconds_axis(m)
    tone = sum(np.sin(2 * np.pi * f * p["drift"] * t) for f in pair) + rng.uniform(0, 0.1) * np.sin(
        2 * np.pi * 3 * pair[0] * t
    )
    return _repeated(rng, n, tone * swell(m, 0.005, 0.005), p["off"], 1, 0.0)


def keypad(p: P, rng: Rng, n: int) -> Array:
    """Somebody dials: each key two sines."""
    m = samples(p["on"])
    t = seconds_axis(m)
    out, at = np.zeros(n), rng.uniform(0, 0.15)
    while at * RATE < n:
        key = sum(np.sin(2 * np.pi * float(rng.choice(tones)) * t) for tones in (ROWS, COLUMNS))
        add_at(out, key * swell(m, 0.003, 0.003), at)
        at += p["on"] + p["off"] * rng.uniform(0.8, 1.3)
    return out


def ringtone(p: P, rng: Rng, n: int) -> Array:
    """A mobile telephone: a short tune in beeps or on wooden bars, over and over."""
    pitches = p["root"] * SCALE[rng.integers(0, len(SCALE), int(rng.integers(3, 9)))]
    lengths = p["note"] * rng.choice([1, 1, 1, 2], len(pitches))
    wooden, state = rng.random() < 0.4, rng.integers(1 << 31)
    notes = []
    for pitch, length in zip(pitches, lengths, strict=True):
        m = samples(length)
        if wooden:
            note = modes(m, [pitch, 3.93 * pitch, 9.2 * pitch], [0.15, 0.05, 0.02], [1, 0.4, 0.15])
        else:
            note = (
                _voice(np.random.default_rng(state), np.full(m, pitch)) * swell(m, 0.003, 0.01) * decay(m, 0.002, 0.6)
            )
        notes.append(note)
    tune = np.concatenate(notes)
    return _repeated(rng, n, tune, 0.0, int(rng.integers(1, 4)), rng.choice([0.0, 0.3, 1.0]))
