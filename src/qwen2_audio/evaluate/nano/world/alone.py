"""What is no sentence: words alone, with and without an article, and lists of words, digits and letters."""

from __future__ import annotations

import string

import numpy as np

from .commands import CLOSED, COMMANDS, DEVICES, FOOD, MUSIC, NAMES, ROOMS, UNITS, pick
from .facts import CAPITALS, CHAT, COLOURS, DAYS, FACTS, LEGS, MONTHS, OPPOSITES, SPEAKS
from .hundreds import DATES, LARGEST, ORDINALS, STATEMENTS, number
from .sentences import LOOKS, SENTENCES, THINGS, WEATHER
from .talk import TALK
from .utterance import Utterance, a, plain, sentence, split_of

Rng = np.random.Generator
LETTERS = tuple(string.ascii_uppercase)
NOT_COUNTED = {"bread", "milk", "butter", "cheese", "rice", "sugar", "salt", "tea", "coffee", "heating", "music"}
PLACES = ("river", "station", "bridge", "school", "church", "city", "beach", "market", "forest", "tree")
ORDERED = ("taxi", "pizza", "bus", "ticket", "train", "sandwich", "list", "week", "year", "day", "month", "number")
# Of sounds that it names, and what else its questions are about.
HEARD = ("sound", "rain", "wind", "water", "siren", "alarm", "telephone", "phone", "bell", "clock", "drum", "cricket")
OTHER_THINGS = ("banana", "carrot", "elephant", "lemon", "tomato", "frog", "sun", "sea", "sky", "grass", "snow")
NOUNS = tuple(dict.fromkeys((
    *DEVICES, *ROOMS, *CLOSED, *FOOD, *THINGS, *UNITS, *LEGS, *SPEAKS, *PLACES, *ORDERED, *HEARD, *OTHER_THINGS,
)))  # fmt: skip
SAID_OFTEN = ("yes", "no", "okay", "please", "one hundred", "half past", "quarter")


def _world() -> tuple[str, ...]:
    """Every word of the world's sentences, the names of things of two words, and the numbers to a hundred."""
    rng, texts = np.random.default_rng(0), [question for fact in (*FACTS, *TALK, *DATES) for question in fact.questions]
    for make in (*COMMANDS, *SENTENCES, *STATEMENTS):
        texts += [make(rng).text for _ in range(40)]
    tables = (
        *NOUNS,
        *NAMES,
        *DAYS,
        *MONTHS,
        *CAPITALS,
        *CAPITALS.values(),
        *COLOURS.values(),
        *MUSIC,
        *LOOKS,
        *WEATHER,
    )
    said = [word for text in (*texts, *tables) for word in plain(text).split()]
    opposites = [word for pair in OPPOSITES for word in pair]
    numbers = [number(n) for n in range(LARGEST + 1)]
    every = (*said, *map(str.lower, tables), *opposites, *ORDINALS, *SAID_OFTEN, *numbers)
    return tuple(dict.fromkeys(word for word in every if word not in ("a", "i", "hundred")))


_PROPER = {name.lower(): name for name in (*NAMES, *DAYS, *MONTHS, *CAPITALS, *CAPITALS.values(), "English", "German",
    "French")}  # fmt: skip
WORDS: tuple[str, ...] = tuple(_PROPER.get(word, word) for word in _world())
"""Every word that is said, without articles; numbers and things of two words among them ("thirty five")."""


def forms(word: str) -> tuple[str, ...]:
    """A word as it is said alone: with and without an article, if it is the name of a thing."""
    if word not in NOUNS:
        return (sentence(word),)
    with_article: tuple[str, ...] = (f"the {word}",)
    if word not in NOT_COUNTED and not word.endswith("s"):
        with_article = ("an hour" if word == "hour" else a(word), *with_article)
    return tuple(map(sentence, (word, *with_article)))


FORMS: dict[str, tuple[str, ...]] = {word: forms(word) for word in WORDS}


def lower(text: str) -> str:
    """As it stands within a sentence: a capital letter only where a name has it."""
    words = text.rstrip(".?!").split()
    return " ".join(word if word in _PROPER.values() or word == "I" else word.lower() for word in words)


_SMALL_TALK = {fact.questions[i]: fact.asked(i) for fact in (*CHAT, *TALK) for i in range(len(fact.questions))}


def spelled(text: str) -> bool:
    """Whether a text is letters with blanks between: "B C A." """
    return all(word in LETTERS for word in text.rstrip(".").split())


def alone(text: str, family: str = "word") -> Utterance:
    """A word or a list that is said by itself: nano says what it heard, unless it is small talk."""
    if text in _SMALL_TALK:
        return _SMALL_TALK[text]
    heard = text.rstrip(".") if spelled(text) else lower(text)
    return Utterance(text, family, f"You said {heard}.")


_GROUPS = (
    DAYS, MONTHS, NAMES, tuple(CAPITALS), tuple(CAPITALS.values()), tuple(dict.fromkeys(COLOURS.values())), FOOD,
    THINGS, ROOMS, DEVICES, tuple(LEGS), LOOKS, UNITS, WEATHER, ORDINALS, MUSIC,
)  # fmt: skip


def word(rng: Rng) -> Utterance:
    """One word; training and test share these: their voices differ."""
    return alone(pick(rng, FORMS[pick(rng, WORDS)]))


def several(rng: Rng) -> Utterance:
    """Two or three of a group, or of two groups: "Thursday and Tuesday." """
    one = _GROUPS[int(rng.integers(len(_GROUPS)))]
    other = one if rng.random() < 0.7 else _GROUPS[int(rng.integers(len(_GROUPS)))]
    found = [pick(rng, one), pick(rng, other)] + ([pick(rng, other)] if rng.random() < 0.3 else [])
    if rng.random() < 0.25:
        found = [f"the {item}" if item in NOUNS else item for item in found]
    joined = f" {pick(rng, ('and', 'and', 'or'))} ".join(found[-2:])
    return alone(sentence(" ".join([*found[:-2], joined])), "several")


def any_words(rng: Rng) -> Utterance:
    """Two to four words that have nothing to do with each other."""
    return alone(sentence(" ".join(pick(rng, WORDS) for _ in range(rng.integers(2, 5)))), "any_words")


def figures(rng: Rng) -> Utterance:
    """Digits one after the other, or two numbers to a hundred."""
    if rng.random() < 0.7:
        said = " ".join(number(int(n)) for n in rng.integers(0, 10, int(rng.integers(2, 7))))
    else:
        said = " and ".join(number(int(n)) for n in rng.integers(0, LARGEST + 1, 2))
    return alone(sentence(said), "figures")


def letters(rng: Rng) -> Utterance:
    """One to five letters, written with blanks between: "B C A." """
    return alone(" ".join(pick(rng, LETTERS) for _ in range(rng.integers(1, 6))) + ".", "letters")


LISTED = (several, any_words, figures, letters)


def _lists(split: str, count: int) -> tuple[str, ...]:
    rng, found = np.random.default_rng(1), dict[str, None]()
    while len(found) < count:
        text = LISTED[len(found) % len(LISTED)](rng).text
        if split_of(text) == split:
            found[text] = None
    return tuple(found)


LISTS: tuple[str, ...] = _lists("train", 800)
"""Lists for training; `people.spoken` draws others."""
