"""Speech from outside nano's world, of which it should say that it cannot make out the words.

Nonsense, other languages, English words that nano does not know, and its own sentences played backwards. Training and
test have other languages and other words.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ..world.speakers import utterance
from .engines import espeak, say
from .voices import draw_manner, draw_voice

Rng = np.random.Generator
LANGUAGES = {
    "train": ("de", "fr-fr", "es", "it", "pl", "fi", "tr", "sw", "ro", "id"),
    "dev": ("da",),
    "test": ("nl", "pt", "sv", "hu", "cs", "la"),
}
HEADS = ("b", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "st", "tr", "pl", "kr", "", "fl")
MIDDLES = ("a", "e", "i", "o", "u", "ai", "ou", "ei")
TAILS = ("", "", "", "n", "s", "t", "r", "l", "m", "k")
# English that no sentence of the world has. Function words are shared, so that a "the" gives nothing away.
GLUE = ("the", "and", "of", "in", "to", "is", "a", "on", "for", "at", "with", "from", "was", "that", "they")


def _read_words() -> dict[str, tuple[str, ...]]:
    """Of each split, from unknown_words.txt: "split: words", lines that begin with a blank go on."""
    found: dict[str, tuple[str, ...]] = {}
    for entry in re.split(
        r"\n(?! )", (Path(__file__).parent / "unknown_words.txt").read_text(encoding="utf-8").strip()
    ):
        split, words = entry.split(":")
        found[split] = tuple(words.split())
    return found


UNKNOWN_WORDS = _read_words()


def strange_speech(rng: Rng, split: str, group: str) -> np.ndarray:
    """float64 [n] at 16 kHz: a few words that nano should not claim to understand, in a voice of `group`."""
    sort = rng.random()
    voice = draw_voice(rng, group)
    manner = draw_manner(rng, voice, far=group == "trained")
    if sort < 0.25:
        return say(" ".join(_nonsense(rng) for _ in range(rng.integers(2, 7))) + ".", voice, manner)
    if sort < 0.45:
        language = LANGUAGES[split][int(rng.integers(len(LANGUAGES[split])))]
        variant = voice.name if voice.engine == "espeak" else "f2" if voice.sex == "woman" else "m3"
        text = " ".join(_nonsense(rng) for _ in range(rng.integers(2, 7)))
        return _at_16k(*espeak(text, f"{language}+{variant}", manner.pitch if manner.accent else 50, manner.pace))
    if sort < 0.85:
        return say(_unknown_words(rng, split), voice, manner)
    return say(utterance(rng, split).text, voice, manner)[::-1]


def _at_16k(samples: np.ndarray, rate: int) -> np.ndarray:
    import soxr

    return np.asarray(soxr.resample(samples, rate, 16_000, quality="MQ"), np.float64)


def _nonsense(rng: Rng) -> str:
    def one(items: tuple[str, ...]) -> str:
        return items[int(rng.integers(len(items)))]

    return "".join(one(HEADS) + one(MIDDLES) + one(TAILS) for _ in range(rng.integers(1, 4)))


def _unknown_words(rng: Rng, split: str) -> str:
    words = UNKNOWN_WORDS[split]
    said = []
    for _ in range(rng.integers(2, 6)):
        said += [GLUE[int(rng.integers(len(GLUE)))]] if rng.random() < 0.5 else []
        said.append(words[int(rng.integers(len(words)))])
    return " ".join(said) + "."
