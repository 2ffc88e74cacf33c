"""espeak-ng variants that nobody has written: pitch, formants, breath and roughness drawn from a seed, for training.

espeak-ng's own variants are some eighty; these are as many as are wanted. The format of the files is that of
espeak-ng's docs/voices.md: `formant NUMBER frequency height width` in percent of the phoneme's own.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

Rng = np.random.Generator
PREFIX = "drawn"
SHELF = 100  # in one folder: espeak-ng knows of 350 voices at most, languages included, and forgets the others
SPREAD = 0.1  # how far a single formant leaves the length of the throat


def name_of(number: int) -> str:
    return f"{PREFIX}{number:03}"


def sex_of(number: int) -> str:
    """Even numbers are men, odd ones women."""
    return ("man", "woman")[number % 2]


def variant(number: int) -> str:
    """The text of variant `number`: the same for ever."""
    rng = np.random.default_rng((number, 8))
    woman = sex_of(number) == "woman"
    low = rng.uniform(140, 205) if woman else rng.uniform(62, 105)
    throat = rng.uniform(103, 130) if woman else rng.uniform(84, 108)
    lines = [
        "language variant",
        f"name {name_of(number)}",
        f"gender {'female' if woman else 'male'}",
        f"pitch {low:.0f} {low * rng.uniform(1.2, 1.8):.0f}",
        f"flutter {rng.integers(0, 8)}",
        f"roughness {rng.integers(0, 4)}",
        f"voicing {rng.uniform(30, 160):.0f}",
        f"consonants {rng.uniform(50, 130):.0f} {rng.uniform(20, 130):.0f}",
        f"intonation {rng.integers(1, 5)}",
        *(_formant(at, throat, rng) for at in range(9)),
    ]
    if rng.random() < 0.5:
        lines.append("breath " + " ".join(str(n) for n in rng.integers(0, 12, 8)))
        lines.append("breathw 150 150 200 200 400 400")
    if rng.random() < 0.25:
        lines.append(f"echo {rng.integers(20, 140)} {rng.integers(5, 40)}")
    if rng.random() < 0.35:
        heights = rng.integers(30, 255, 4)
        lines.append("tone " + " ".join(f"{at} {h}" for at, h in zip((100, 700, 1800, 4000), heights, strict=True)))
    return "\n".join(lines) + "\n"


def _formant(at: int, throat: float, rng: Rng) -> str:
    """Those that carry the vowels (1 to 3) stay loud; the higher ones may be gone."""
    frequency = throat * rng.uniform(1 - SPREAD, 1 + SPREAD)
    height, width = rng.uniform(60, 130), rng.uniform(70, 165)
    if at > 3 and rng.random() < 0.2:
        height = 0
    return f"formant {at} {frequency:.0f} {height:.0f} {width:.0f}"


@cache
def data_folder(own: Path, shelf: int) -> Path:
    """A folder with a copy of espeak-ng's data `own`, with `SHELF` drawn variants; gone with the process."""
    home = Path(tempfile.mkdtemp(prefix="espeak-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    data = home / "espeak-ng-data"  # 13 MB; links would not do: espeak-ng does not follow all of them
    shutil.copytree(own, data, ignore=lambda folder, names: names if Path(folder).name == "!v" else [])
    for number in range(shelf * SHELF, (shelf + 1) * SHELF):
        (data / "voices" / "!v" / name_of(number)).write_text(variant(number), encoding="utf-8")
    return home
