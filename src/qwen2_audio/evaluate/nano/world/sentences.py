"""Statements, names and digits: what can only be written down or remembered."""

from __future__ import annotations

import numpy as np

from .commands import FOOD, NAMES, pick
from .facts import CAPITALS, DAYS
from .numbers import words
from .utterance import Utterance, a

Rng = np.random.Generator
VERBS = ("bought", "found", "lost", "sold", "painted", "saw", "wants", "likes", "needs", "dropped")
LOOKS = ("red", "green", "blue", "white", "black", "yellow", "big", "small", "old", "new", "heavy", "cheap")
THINGS = (
    "house", "car", "book", "chair", "table", "cup", "hat", "bag", "box", "bike", "boat", "coat", "ball", "ring",
    "picture", "key",
)  # fmt: skip
PLACES = (
    "in the garden", "near the river", "at the station", "in the kitchen", "on the bridge", "at school",
    "behind the church", "in the city", "on the beach", "at the market", "in the forest", "under the tree",
)  # fmt: skip
WEATHER = ("sunny", "rainy", "cold", "warm", "windy", "cloudy", "dry", "hot")
CITIES = tuple(CAPITALS.values())
COUNTRIES = tuple(CAPITALS)
NOTED = "Thank you, I will remember that."


def happening(rng: Rng) -> Utterance:
    thing = f"{pick(rng, LOOKS)} {pick(rng, THINGS)}"
    return Utterance(f"{pick(rng, NAMES)} {pick(rng, VERBS)} {a(thing)} {pick(rng, PLACES)}.", "happening", NOTED)


def place(rng: Rng) -> Utterance:
    return Utterance(
        f"The {pick(rng, LOOKS)} {pick(rng, THINGS)} is {pick(rng, ('still', 'not', 'now', 'always'))} "
        f"{pick(rng, PLACES)}.",
        "place",
        NOTED,
    )


def people(rng: Rng) -> Utterance:
    one, two = rng.permutation(len(NAMES))[:2]
    verb = pick(rng, ("are waiting", "are sitting", "are playing", "are working", "met", "sleep"))
    return Utterance(f"{NAMES[one]} and {NAMES[two]} {verb} {pick(rng, PLACES)}.", "people", NOTED)


def weather(rng: Rng) -> Utterance:
    when = pick(rng, ("today", "tomorrow", *(f"on {day}" for day in DAYS)))
    return Utterance(f"It will be {pick(rng, WEATHER)} in {pick(rng, CITIES)} {when}.", "weather", NOTED)


def train(rng: Rng) -> Utterance:
    n = words(int(rng.integers(1, 13)))
    verb, thing = pick(rng, ("leaves", "arrives")), pick(rng, ("train", "bus", "boat"))
    return Utterance(f"The {thing} to {pick(rng, CITIES)} {verb} at {n} o'clock.", "train", NOTED)


def wish(rng: Rng) -> Utterance:
    one, two = rng.permutation(len(FOOD))[:2]
    what = f"{FOOD[one]} and {FOOD[two]}"
    return Utterance(f"I would like some {what}, please.", "wish", f"Of course, some {what}.")


def name(rng: Rng) -> Utterance:
    one = pick(rng, NAMES)
    start = pick(rng, ("My name is", "I am", "Hello, I am", "Good morning, my name is"))
    return Utterance(f"{start} {one} from {pick(rng, COUNTRIES)}.", "name", f"Nice to meet you, {one}.")


def digits(rng: Rng) -> Utterance:
    said = " ".join(words(int(d)) for d in rng.integers(0, 10, int(rng.integers(3, 7))))
    what = pick(rng, ("code", "number"))
    return Utterance(f"The {what} is {said}.", "digits", f"I have noted the {what} {said}.")


SENTENCES = (happening, place, people, weather, train, wish, name, digits)
