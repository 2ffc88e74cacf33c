"""A dry voice as somebody's device records it: cut close or late, from near or far, over babble and noise, through a
narrow microphone with gain control. All is drawn from the generator handed in; waveforms are float64 [n] at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import soxr

from .mix import Samples, add_room, set_level
from .sounds import dsp
from .sounds.dsp import Array, Rng

LONGEST_SILENCE = 0.6  # s on either side
CLOSEST_CUT = 0.1  # s; the words begin and end 0.06 s within a dry clip
FRAME = 0.02  # s
PLAIN = 0.5  # of recordings: made by a good device in a quiet place
MU = 255.0  # of the G.711 telephone


def recorded(dry: Array, rng: Rng, behind: Sequence[Array] = ()) -> Samples:
    """`dry` as a recording: float32 [n] within -1..1. `behind`: dry voices that may babble behind it."""
    x = dsp.unit(at_speed(dry, rng)) if rng.random() < 0.5 else dsp.unit(dry)
    x = silence_around(hesitant(cut_close(x, rng), rng), rng)
    if rng.random() < PLAIN:
        near = over_noise(add_room(x, rng, chance=0.35, wettest=0.4, longest=0.5), rng, loudest=22)
        return set_level(through_microphone(near, rng, lowest=4500), rng).astype(np.float32)
    x = in_room(x, rng)
    if behind and rng.random() < 0.3:
        x = over_babble(x, behind, rng)
    x = through_microphone(over_noise(x, rng), rng)
    x = gain_controlled(x, rng) if rng.random() < 0.25 else x
    return degraded(set_level(x, rng), rng).astype(np.float32)


def at_speed(x: Array, rng: Rng) -> Array:
    """Up to an eighth faster or slower, pitch and formants with it, as of a smaller or larger speaker."""
    return np.asarray(soxr.resample(x, dsp.RATE * rng.uniform(0.89, 1.13), dsp.RATE, quality="MQ"), np.float64)


def cut_close(x: Array, rng: Rng) -> Array:
    """In a third of clips the margin, and up to 0.04 s of the sound itself, is gone at either end."""
    front, back = (int(dsp.RATE * rng.uniform(0.02, CLOSEST_CUT)) if rng.random() < 0.35 else 0 for _ in "ab")
    return x[front : len(x) - back] if len(x) - front - back > 0.3 * dsp.RATE else x


def hesitant(x: Array, rng: Rng) -> Array:
    """A pause of 0.15 to 0.7 s at the quietest place inside of one long clip in eight, where that is quiet enough."""
    size = int(FRAME * dsp.RATE)
    levels = np.sqrt(np.mean(x[: len(x) // size * size].reshape(-1, size) ** 2, axis=1))
    inner = levels[len(levels) // 5 : -len(levels) // 5]
    if len(x) < 1.2 * dsp.RATE or rng.random() > 0.125 or inner.min() > 0.12 * levels.max():
        return x
    at = (len(levels) // 5 + int(inner.argmin())) * size + size // 2
    return np.concatenate([x[:at], np.zeros(dsp.samples(rng.uniform(0.15, 0.7))), x[at:]])


def silence_around(x: Array, rng: Rng) -> Array:
    """Up to 0.6 s before, and after, in half of clips each; noise fills it later."""
    before, after = rng.uniform(0, LONGEST_SILENCE, 2) * (rng.random(2) < 0.5)
    return np.concatenate([np.zeros(int(before * dsp.RATE)), x, np.zeros(int(after * dsp.RATE))])


def in_room(x: Array, rng: Rng) -> Array:
    """Near the microphone, in a room, or far away in it: half, a third, the rest; the far lose their high tones."""
    place = rng.random()
    if place < 0.5:
        return add_room(x, rng, chance=0.2, wettest=0.25, longest=0.3)
    if place < 0.83:
        return add_room(x, rng, chance=1.0, wettest=0.5, longest=0.6)
    far = add_room(x, rng, chance=1.0, wettest=1.0, longest=0.8)
    return dsp.band(far, 0, rng.uniform(3500, 7000), 1)


def over_babble(x: Array, behind: Sequence[Array], rng: Rng) -> Array:
    """Two to four other voices together, 8 to 24 dB below, each from a random moment on."""
    babble = np.zeros(len(x))
    for _ in range(int(rng.integers(2, 5))):
        voice = dsp.unit(behind[int(rng.integers(len(behind)))])
        babble += np.roll(np.resize(voice, len(x)), int(rng.integers(len(x))))
    return x + dsp.unit(babble) * _level(x) * 10 ** (-rng.uniform(8, 24) / 20)


def over_noise(x: Array, rng: Rng, loudest: float = 8) -> Array:
    """A floor `loudest` to 55 dB below in four clips of five, and in some of them the mains' hum."""
    if rng.random() < 0.2:
        return x
    floor = dsp.coloured_noise(rng, len(x), rng.uniform(0, 2))
    if rng.random() < 0.12:
        mains = float(rng.choice((50.0, 60.0)))
        floor = floor + dsp.buzz(np.full(len(x), mains), int(rng.integers(2, 8)), 1.0) * rng.uniform(0.3, 1.5)
    return x + dsp.unit(floor) * _level(x) * 10 ** (-rng.uniform(loudest, 55) / 20)


def through_microphone(x: Array, rng: Rng, lowest: float = 3000) -> Array:
    """Lows and highs cut in half of clips, down to `lowest` Hz; a telephone's 300 to 3,400 Hz in one of twelve."""
    sort = rng.random()
    if sort < 0.5:
        return x
    if sort < 0.58 and lowest < 3400:
        return dsp.band(x, 300, 3400, 6)
    low = rng.uniform(60, 350) if rng.random() < 0.6 else 0.0
    high = rng.uniform(lowest, 7500) if rng.random() < 0.7 else 7900.0
    return dsp.band(x, low, high, int(rng.integers(2, 9)))


def gain_controlled(x: Array, rng: Rng) -> Array:
    """Louder where it is quiet: the envelope, over 50 to 400 ms, is raised to a power below 1."""
    width = dsp.samples(rng.uniform(0.05, 0.4))
    squares = np.concatenate([[0.0], np.cumsum(x**2)])
    at = np.arange(len(x))
    ahead, past = np.minimum(at + width // 4, len(x)), np.maximum(at - width, 0)
    envelope = np.sqrt((squares[ahead] - squares[past]) / np.maximum(ahead - past, 1))
    floor = 0.03 * float(envelope.max()) + 1e-9
    return dsp.unit(x * np.maximum(envelope, floor) ** (rng.uniform(0.3, 0.8) - 1.0))


def degraded(x: Array, rng: Rng) -> Array:
    """Clipped peaks in one clip of eight, a telephone's eight bits in one of twenty-five."""
    if rng.random() < 0.125:
        limit = float(np.quantile(np.abs(x), rng.uniform(0.97, 0.999))) + 1e-6
        x = np.clip(x, -limit, limit)
    if rng.random() < 0.04:
        coded = np.sign(x) * np.log1p(MU * np.abs(np.clip(x, -1, 1))) / np.log1p(MU)
        coded = np.round(coded * 127) / 127
        x = np.sign(coded) * np.expm1(np.abs(coded) * np.log1p(MU)) / MU
    return np.clip(x, -1, 1)


def _level(x: Array) -> float:
    return float(np.sqrt(np.mean(x**2)))
