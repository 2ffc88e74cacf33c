"""espeak-ng variants drawn from a seed, for training: pitch, formants, breath and roughness.

espeak-ng has some eighty variants of its own; of these there are as many as are wanted. The format of the files is in
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
PER_FOLDER = 100  # variants: espeak-ng reads 350 voices at most, languages included, and ignores the others
FORMANT_SPREAD = 0.1  # how far a single formant strays from the scale that all of a variant's share


def variant_name(number: int) -> str:
    return f"{PREFIX}{number:03}"


def variant_sex(number: int) -> str:
    """Even numbers are men, odd ones women."""
    return ("man", "woman")[number % 2]


def variant(number: int) -> str:
    """The file of variant `number`, the same on every call."""
    rng = np.random.default_rng((number, 8))
    woman = variant_sex(number) == "woman"
    low = rng.uniform(140, 205) if woman else rng.uniform(62, 105)
    scale = rng.uniform(103, 130) if woman else rng.uniform(84, 108)
    lines = [
        "language variant",
        f"name {variant_name(number)}",
        f"gender {'female' if woman else 'male'}",
        f"pitch {low:.0f} {low * rng.uniform(1.2, 1.8):.0f}",
        f"flutter {rng.integers(0, 8)}",
        f"roughness {rng.integers(0, 4)}",
        f"voicing {rng.uniform(30, 160):.0f}",
        f"consonants {rng.uniform(50, 130):.0f} {rng.uniform(20, 130):.0f}",
        f"intonation {rng.integers(1, 5)}",
        *(_formant(index, scale, rng) for index in range(9)),
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


def _formant(index: int, scale: float, rng: Rng) -> str:
    """A line of the file. Formants 1 to 3, which carry the vowels, stay loud; higher ones may be silent.

    `scale` is in percent of the phoneme's own frequency.
    """
    frequency = scale * rng.uniform(1 - FORMANT_SPREAD, 1 + FORMANT_SPREAD)
    height, width = rng.uniform(60, 130), rng.uniform(70, 165)
    if index > 3 and rng.random() < 0.2:
        height = 0
    return f"formant {index} {frequency:.0f} {height:.0f} {width:.0f}"


@cache
def data_folder(espeak_data: Path, number: int) -> Path:
    """A copy of espeak-ng's data with the `number`-th `PER_FOLDER` drawn variants, removed when the process ends."""
    home = Path(tempfile.mkdtemp(prefix="espeak-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    data = home / "espeak-ng-data"  # 13 MB, copied: espeak-ng does not follow every link
    shutil.copytree(espeak_data, data, ignore=lambda folder, names: names if Path(folder).name == "!v" else [])
    for variant_number in range(number * PER_FOLDER, (number + 1) * PER_FOLDER):
        path = data / "voices" / "!v" / variant_name(variant_number)
        path.write_text(variant(variant_number), encoding="utf-8")
    return home
