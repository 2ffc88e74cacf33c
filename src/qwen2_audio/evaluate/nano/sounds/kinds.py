"""The list of kinds, the ranges of their parameters, and the rule that keeps test parameters out of training."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from . import animals, impacts, music, nature, others, signals

CELLS = {1: 24, 2: 8, 3: 6}  # into how many cells a range is cut, by the number of parameters
SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Kind:
    """One kind of sound: how it is made, and what may vary."""

    name: str
    render: Callable[[Mapping[str, float], np.random.Generator, int], np.ndarray]
    ranges: Mapping[str, tuple[float, float]]  # low, high; drawn evenly in the logarithm if low > 0
    shortest: float = 1.2  # seconds that this kind needs to be itself
    named: bool = True  # False: nano should say that it hears nothing it can name


def split_of(name: str, units: np.ndarray) -> str:
    """The split that owns the parameters `units` (each in 0..1); whole cells of parameter space go to one split.

    A hash of the cell decides: one sixth of all cells is for test, one sixth for development, the rest for training.
    So every test clip has a combination of parameters that no training clip comes near.
    """
    units = units[:3]  # cells of a fourth parameter would only cut each corner finer
    count = CELLS[len(units)]
    cells = np.minimum((units * count).astype(int), count - 1)
    digest = hashlib.sha256(f"{name} {' '.join(map(str, cells))}".encode()).digest()
    code = int(cells[0]) % 6 if len(cells) == 1 else digest[0] % 6  # a single range: every sixth stripe
    return {0: "test", 1: "dev"}.get(code, "train")


def draw_parameters(kind: Kind, split: str, rng: np.random.Generator) -> dict[str, float]:
    """Parameters of `kind` from the cells that `split` owns."""
    while True:
        units = rng.random(len(kind.ranges))
        if split_of(kind.name, units) == split:
            break
    return {name: _between(*bounds, u) for (name, bounds), u in zip(kind.ranges.items(), units, strict=True)}


def _between(low: float, high: float, u: float) -> float:
    return float(low * (high / low) ** u) if low > 0 else float(low + (high - low) * u)


KINDS = (
    Kind("dog", animals.dog, {"pitch": (150, 620), "length": (0.1, 0.28), "gap": (0.2, 1.0), "rough": (0.1, 0.8)}),
    Kind("cat", animals.cat, {"pitch": (380, 800), "length": (0.45, 1.2), "gap": (0.2, 1.2)}),
    Kind("bird", animals.bird, {"pitch": (2400, 5200), "length": (0.05, 0.18), "gap": (0.03, 0.15)}),
    Kind("cricket", animals.cricket, {"pitch": (3400, 5600), "pulse_rate": (22, 60), "gap": (0.1, 0.7)}),
    Kind("rain", nature.rain, {"low": (500, 2500), "drops": (40, 900), "near": (0.3, 1.6)}),
    Kind("wind", nature.wind, {"howl": (250, 800), "gusts": (0.25, 1.0), "whistling": (0.3, 1.6)}, 2.0),
    Kind("thunder", nature.thunder, {"top": (110, 420), "roll": (0.7, 2.0), "crack": (0.1, 2.0)}, 2.5),
    Kind("water", nature.water, {"pitch": (420, 1400), "bubbles": (10, 50), "splash": (0.05, 0.6)}),
    Kind("siren", signals.siren, {"low": (400, 800), "span": (1.6, 2.6), "period": (0.9, 4.0)}, 2.5),
    Kind("alarm", signals.alarm, {"pitch": (900, 3600), "on": (0.06, 0.45), "off": (0.05, 0.5)}),
    Kind("phone", signals.phone, {"pitch": (500, 1600), "warble": (13, 26), "ring": (0.7, 2.0), "pause": (0.6, 2.0)}),
    Kind("horn", signals.horn, {"pitch": (290, 480), "honk": (0.2, 1.1), "soft": (0.3, 0.9)}),
    Kind("bell", signals.bell, {"pitch": (300, 1300), "ring": (0.8, 3.0), "every": (0.9, 3.0)}, 1.5),
    Kind("clock", signals.clock, {"pitch": (1600, 5000), "period": (0.25, 1.0), "echo": (0.01, 0.06)}, 2.0),
    Kind(
        "engine", signals.engine, {"rate": (22, 95), "rev": (0.05, 0.8), "muffler": (250, 2000), "rattle": (0.1, 0.7)}
    ),
    Kind("footsteps", impacts.footsteps, {"period": (0.36, 0.85), "floor": (60, 190), "scuff": (0.15, 1.0)}, 2.0),
    Kind("knocking", impacts.knocking, {"board": (130, 480), "ring": (0.02, 0.07), "spacing": (0.11, 0.28)}),
    Kind("applause", impacts.applause, {"people": (8, 60), "tone": (900, 2000), "pace": (2.8, 5.0)}),
    Kind(
        "glass",
        impacts.glass,
        {"pitch": (2200, 5000), "spread": (0.08, 0.4), "shards": (15, 60), "crash": (0.02, 0.12)},
    ),
    Kind("drum", music.drum, {"tempo": (75, 165), "kick": (45, 75), "hats": (0.4, 0.95)}, 2.0),
    Kind("piano", music.piano, {"root": (180, 560), "note": (0.2, 0.6), "chords": (0.05, 0.6)}, 1.8),
    Kind("whistle", music.whistle, {"root": (750, 1500), "note": (0.2, 0.6), "vibrato": (0.002, 0.025)}, 1.8),
    Kind("noise", others.noise, {"slope": (0.0, 2.0)}, named=False),
    Kind("silence", others.silence, {"floor_db": (-100.0, -80.0)}, named=False),
    Kind("tone", others.tone, {"pitch": (110, 4000)}, named=False),
    Kind("voice", others.voice, {"pitch": (80, 290), "rate": (3, 6.5)}, 1.8, named=False),
    Kind("unknown", others.unknown, {"chance": (0.0, 1.0)}, 1.8, named=False),
)
UNHEARD = Kind(
    "unheard", others.unheard, {"chance": (0.0, 1.0)}, 1.8, named=False
)  # test only: expected answer "unknown"
NAMES = tuple(kind.name for kind in KINDS)
NAMED = tuple(kind.name for kind in KINDS if kind.named)
