"""What Kokoro says for training, in whose voice: a fixed list, each line once.

Every word of the world alone, with and without its article; letters, lists, sentences, and words that nano must
decline. Development has sentences, lists and strange words of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from qwen2_audio.evaluate.nano.mix import clip_seed
from qwen2_audio.evaluate.nano.speech.kokoro import TRAINING_VOICES
from qwen2_audio.evaluate.nano.world import people
from qwen2_audio.evaluate.nano.world.alone import LETTERS
from qwen2_audio.evaluate.nano.world.numbers import ONES, TENS
from qwen2_audio.evaluate.nano.world.utterance import Utterance

Rng = np.random.Generator
SENTENCES = ("old", "talk", "sum", "number", "statement")  # kinds of `people.spoken` that are no words alone
# Renderings of each word, and how many lines of the others; what a listener must get from one word has more.
WORD, NUMBER_WORD, COMPOUND, LETTER = 6, 8, 3, 8
LISTS, SPOKEN, STRANGE = 400, 1000, 150  # STRANGE: of several words; the single ones are all said
DEV = {"list": 60, "sentence": 160, "alien": 80}
SPEEDS = 0.75, 1.3


@dataclass(frozen=True)
class Line:
    """Something that Kokoro says once."""

    split: str
    sort: str  # "word", "list", "sentence", or "alien", whose utterance has no answer
    said: Utterance
    aloud: str  # what Kokoro is given
    voice: tuple[tuple[str, float], ...]  # voices and their shares
    speed: float

    @property
    def sex(self) -> str:
        return "woman" if self.voice[0][0][1] == "f" else "man"


@cache
def lines() -> tuple[Line, ...]:
    """All of them in an order in which every beginning has all sorts.

    Voice, pace and place depend on the line alone, so that a change of the world leaves the clips of others valid.
    """
    rng, times, drawn = np.random.default_rng(25), Counter[str](), dict[int, Line]()
    for split, sort, said in (*_training(rng), *_development(rng)):
        times[said.text] += 1
        seed = clip_seed(f"{split} {sort} {said.text}", times[said.text])
        drawn[seed] = _line(split, sort, said, np.random.default_rng(seed))
    return tuple(drawn[seed] for seed in sorted(drawn))


def _training(rng: Rng) -> Iterator[tuple[str, str, Utterance]]:
    for word, forms in people.FORMS.items():
        number = word.split()[-1] in _NUMBERS
        count = COMPOUND if " " in word else NUMBER_WORD if number else WORD
        for turn in range(max(count, len(forms))):
            yield "train", "word", people.alone(forms[turn % len(forms)])
    for letter in LETTERS:
        for _ in range(LETTER):
            yield "train", "word", people.alone(f"{letter}.", "letters")
    for text in people.LISTS[:LISTS]:
        yield "train", "list", people.alone(text, "letters" if len(text.split()[-1].rstrip(".")) == 1 else "list")
    for _ in range(SPOKEN):
        yield "train", "sentence", people.spoken("train", rng, SENTENCES[int(rng.choice(5, p=_SHARES))])
    for text in (*people.ALIENS, *(people.alien(rng, "train") for _ in range(STRANGE))):
        yield "train", "alien", Utterance(text, "alien", "")


def _development(rng: Rng) -> Iterator[tuple[str, str, Utterance]]:
    for _ in range(DEV["list"]):
        yield "dev", "list", people.spoken("dev", rng, "list")
    for _ in range(DEV["sentence"]):
        yield "dev", "sentence", people.spoken("dev", rng, SENTENCES[int(rng.choice(5, p=_SHARES))])
    for text in people.aliens("dev")[: DEV["alien"]]:
        yield "dev", "alien", Utterance(text, "alien", "")


def _line(split: str, sort: str, said: Utterance, rng: Rng) -> Line:
    return Line(split, sort, said, people.aloud(said.text, rng), _voice(rng), round(float(rng.uniform(*SPEEDS)), 2))


def _voice(rng: Rng) -> tuple[tuple[str, float], ...]:
    """One voice in a third of lines, else a mixture of two or three of the same sex; the largest share first."""
    sex = "f" if rng.random() < 0.5 else "m"
    names = [name for name in TRAINING_VOICES if name[1] == sex]
    count = int(rng.choice((1, 2, 3), p=(0.33, 0.45, 0.22)))
    drawn = rng.permutation(names)[:count].tolist()
    shares = sorted(np.round(rng.dirichlet(np.full(count, 2.0)), 2).tolist(), reverse=True)
    return tuple((name, share) for name, share in zip(drawn, shares, strict=True) if share > 0)


_NUMBERS = frozenset((*ONES, *TENS[2:]))
_SHARES = (0.4, 0.25, 0.15, 0.08, 0.12)
