"""Sounds as they are found outside: wider physics, distance, rooms, things nearby, poor microphones, hasty cuts."""

from __future__ import annotations

import numpy as np

from .mix import Clip, Samples, add_noise, add_room, clip_seed, rms_db, set_level
from .sounds import dsp
from .sounds.dsp import Array, Rng
from .sounds.field_kinds import SORTS
from .sounds.kinds import KINDS, SPLITS, Kind, draw_parameters

PLAIN = {kind.name: kind for kind in KINDS}
BEHIND = ("wind", "rain", "engine", "noise", "voice", "water", "bird", "cricket")  # what is often heard far off
MOMENTS = (
    "dog",
    "bird",
    "horn",
    "knocking",
    "glass",
    "piano",
    "whistle",
    "bell",
    "alarm",
)  # one stroke or call is enough
NEARBY = ("dog", "bird", "knocking", "horn", "footsteps", "clock", "voice", "bell")  # what may cut in for a moment


def field_sound(kind: str, rng: np.random.Generator, split: str) -> Samples:
    """A clip of `kind` as a recording might have it: float32 [n] at 16 kHz, 0.12 to 10 s, peak at most 1.

    Args:
        kind: one of `sounds.kinds.NAMES`. Those of `SORTS` come in wider shapes than in `render_clip`.
        rng: all chance comes from it.
        split: "train", "dev" or "test"; each has parameters of its own, of the kind and of what is behind it.

    Raises ValueError for another kind or split.
    """
    if kind not in PLAIN or split not in SPLITS:
        raise ValueError(
            f"{kind!r} of {split!r}: expected a kind of {', '.join(PLAIN)}, and one of {', '.join(SPLITS)}."
        )
    n = dsp.samples(_seconds(kind, rng))
    if kind == "silence":  # its level is what it is
        return PLAIN[kind].render(draw_parameters(PLAIN[kind], split, rng), rng, n).astype(np.float32)
    sound = _render(kind, rng, split, n)
    if rng.random() < 0.2 and PLAIN[kind].named:
        sound = _later(sound, _render(kind, rng, split, n), rng)
    if kind in MOMENTS and n < dsp.samples(0.6):
        sound = _loudest(sound, n)
    sound = _padded(_cut(dsp.unit(sound), rng), rng)
    sound = add_room(_far(sound, rng), rng, chance=0.6, wettest=0.9, longest=1.4)
    if kind not in ("noise", "tone"):
        sound = add_noise(_among_others(sound, kind, rng, split), rng)
    return set_level(_recorded(sound, rng), rng).clip(-1, 1).astype(np.float32)


def render_field(split: str, index: int, kind: str) -> tuple[Samples, Clip]:
    """Field-like clip `index` of `kind` and `split`, always the same, and what it is."""
    samples = field_sound(kind, np.random.default_rng(clip_seed(f"{split} field {kind}", index)), split)
    return samples, Clip(kind, len(samples) / dsp.RATE, rms_db(samples))


def _seconds(kind: str, rng: Rng) -> float:
    """Real clips are short: a third below 1.5 s, a single stroke or bark far below, few above 5."""
    bounds = ((0.15, 0.5), (0.4, 1.5), (1.5, 5.0), (5.0, 9.0))
    seconds = rng.uniform(*bounds[int(rng.choice(4, p=(0.1, 0.26, 0.57, 0.07)))])
    least = 0.0 if kind in MOMENTS or kind in SORTS else 0.75 * PLAIN[kind].shortest
    return float(max(seconds, least))


def _render(kind: str, rng: Rng, split: str, n: int) -> Array:
    """Dry, RMS 1: a wider sort of the kind three times in four, where it has any."""
    sort: Kind = PLAIN[kind]
    if kind in SORTS and rng.random() < 0.75:
        sort = SORTS[kind][int(rng.integers(len(SORTS[kind])))]
    length = max(n, dsp.samples(sort.shortest))
    return dsp.unit(sort.render(draw_parameters(sort, split, rng), rng, length))


def _later(sound: Array, second: Array, rng: Rng) -> Array:
    """A second source of the same kind, softer, from somewhere in the clip on."""
    out = sound.copy()
    dsp.add_at(out, second * 10 ** (-rng.uniform(2, 14) / 20), rng.uniform(0, 0.7) * len(sound) / dsp.RATE)
    return out


def _cut(x: Array, rng: Rng) -> Array:
    """Trimmed hastily: the beginning or the end is missing in some clips, faded over 2 to 60 ms."""
    shortest = dsp.samples(0.35)
    if rng.random() < 0.25:
        x = x[int(rng.uniform(0, 0.35) * len(x)) :] if len(x) > 2 * shortest else x
    if rng.random() < 0.25 and len(x) > 2 * shortest:
        x = x[: int(rng.uniform(0.6, 1) * len(x))]
    return x * dsp.swell(len(x), rng.choice([0.002, 0.02]), rng.uniform(0.002, 0.06))


def _loudest(x: Array, n: int) -> Array:
    """The `n` samples that begin where most of the sound is."""
    sums = np.concatenate([[0.0], np.cumsum(x**2)])
    start = int((sums[n:] - sums[:-n]).argmax()) if len(x) > n else 0
    return x[start : start + n]


def _padded(x: Array, rng: Rng) -> Array:
    """Up to half a second of silence on either side, in three of ten clips each."""
    before, after = rng.uniform(0, 0.5, 2) * (rng.random(2) < 0.3)
    return np.concatenate([np.zeros(int(before * dsp.RATE)), x, np.zeros(int(after * dsp.RATE))])


def _far(x: Array, rng: Rng) -> Array:
    """Air and walls take the high tones of what is far away."""
    if rng.random() < 0.65:
        return x
    return dsp.band(x, 0, 1500 * 5 ** rng.random(), 1)


def _among_others(x: Array, kind: str, rng: Rng, split: str) -> Array:
    """Something steady behind the whole clip in a third of them, something that cuts in for a while in a seventh."""
    loud = float(np.sqrt(np.mean(x**2)))
    if rng.random() < 0.35:
        behind = _other(BEHIND, kind, rng)
        x = x + _render(behind, rng, split, len(x))[: len(x)] * loud * 10 ** (-rng.uniform(9, 28) / 20)
    if rng.random() < 0.15:
        piece = _render(_other(NEARBY, kind, rng), rng, split, dsp.samples(rng.uniform(0.3, 1.0)))
        out = x.copy()
        dsp.add_at(out, piece * loud * 10 ** (-rng.uniform(6, 16) / 20), rng.uniform(0, 1) * len(x) / dsp.RATE)
        x = out
    return x


def _other(names: tuple[str, ...], kind: str, rng: Rng) -> str:
    others = [name for name in names if name != kind]
    return others[int(rng.integers(len(others)))]


def _recorded(x: Array, rng: Rng) -> Array:
    """A microphone and what it is plugged into: narrow bands, gain control, clipping, coarse steps."""
    if rng.random() < 0.4:
        x = dsp.band(x, rng.uniform(30, 350), 2200 * 3.5 ** rng.random(), int(rng.integers(2, 9)))
    if rng.random() < 0.15:  # gain control: the softer it gets, the more it is raised
        loud = np.sqrt(np.maximum(dsp.band(x**2, 0, rng.uniform(2, 8), 1), 1e-6))
        x = x / (loud + 0.1 * float(loud.max()) + 1e-9)
    if rng.random() < 0.12:
        x = np.tanh(dsp.unit(x) * rng.uniform(0.7, 3))
    if rng.random() < 0.05:
        peak = float(np.abs(x).max()) + 1e-9
        x = np.round(x / peak * 127) / 127
    return x
