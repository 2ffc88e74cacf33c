"""Speech from outside nano's world, of which it should say that it cannot make out the words.

Nonsense, other languages, English words that nano does not know, and its own sentences played backwards. Languages and
words differ between training and test.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import numpy as np

from ..sounds.dsp import Array, Rng
from ..world.speakers import utterance
from .engines import espeak, say
from .voices import draw_manner, draw_voice

LANGUAGES = {
    "train": ("de", "fr", "es", "it", "pl", "fi", "tr", "sw", "ro", "id"),
    "dev": ("da",),
    "test": ("nl", "pt", "sv", "hu", "cs", "la"),
}
ONSETS = ("b", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "st", "tr", "pl", "kr", "", "fl")
VOWELS = ("a", "e", "i", "o", "u", "ai", "ou", "ei")
CODAS = ("", "", "", "n", "s", "t", "r", "l", "m", "k")
# Between words that no sentence of the world has. The world's sentences have these too, so that they give nothing away.
FUNCTION_WORDS = ("the", "and", "of", "in", "to", "is", "a", "on", "for", "at", "with", "from", "was", "that", "they")


@cache
def unknown_words() -> dict[str, tuple[str, ...]]:
    """English words of each split that no sentence of the world has, from unknown_words.txt.

    An entry of the file is "split: words"; a line that begins with a blank continues the entry.
    """
    text = (Path(__file__).parent / "unknown_words.txt").read_text(encoding="utf-8").strip()
    entries = [entry.split(":") for entry in re.split(r"\n(?! )", text)]
    return {split: tuple(words.split()) for split, words in entries}


def strange_speech(rng: Rng, split: str, group: str) -> Array:
    """float64 [n] at 16 kHz: a few words that nano should not claim to understand, in a voice of `group`."""
    chance = rng.random()
    voice = draw_voice(rng, group)
    manner = draw_manner(rng, voice, far=group == "trained")
    if chance < 0.25:
        return say(" ".join(_nonsense(rng) for _ in range(rng.integers(2, 7))) + ".", voice, manner)
    if chance < 0.45:
        language = LANGUAGES[split][int(rng.integers(len(LANGUAGES[split])))]
        variant = voice.name if voice.engine == "espeak" else "f2" if voice.sex == "woman" else "m3"
        text = " ".join(_nonsense(rng) for _ in range(rng.integers(2, 7)))
        return _at_16k(*espeak(text, f"{language}+{variant}", manner.pitch if manner.accent else 50, manner.pace))
    if chance < 0.85:
        return say(_unknown_sentence(rng, split), voice, manner)
    return say(utterance(rng, split).text, voice, manner)[::-1]


def _at_16k(samples: Array, rate: int) -> Array:
    import soxr

    return np.asarray(soxr.resample(samples, rate, 16_000, quality="MQ"), np.float64)


def _nonsense(rng: Rng) -> str:
    """A word of one to three syllables that means nothing."""

    def pick(items: tuple[str, ...]) -> str:
        return items[int(rng.integers(len(items)))]

    return "".join(pick(ONSETS) + pick(VOWELS) + pick(CODAS) for _ in range(rng.integers(1, 4)))


def _unknown_sentence(rng: Rng, split: str) -> str:
    """Two to five unknown words, function words before some of them."""
    words = unknown_words()[split]
    sentence = []
    for _ in range(rng.integers(2, 6)):
        sentence += [FUNCTION_WORDS[int(rng.integers(len(FUNCTION_WORDS)))]] if rng.random() < 0.5 else []
        sentence.append(words[int(rng.integers(len(words)))])
    return " ".join(sentence) + "."
