"""Numbers to a hundred, sums with them, times of the day, and what a calendar holds."""

from __future__ import annotations

import numpy as np

from .commands import NAMES, pick
from .facts import DAYS, MONTHS, Fact
from .numbers import words
from .utterance import Utterance, sentence

Rng = np.random.Generator
LARGEST = 100
ORDINALS = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh",
    "twelfth",
)  # fmt: skip
MINUTES = {"past": ("five", "ten", "quarter", "twenty", "twenty five"), "to": ("five", "ten", "quarter", "twenty")}
LENGTHS = {"January": 31, "March": 31, "April": 30, "May": 31, "June": 30, "July": 31, "August": 31, "September": 30,
    "October": 31, "November": 30, "December": 31}  # fmt: skip


def number(n: int) -> str:
    """0 to 100 as words: 100 is "one hundred"."""
    return "one hundred" if n == LARGEST else words(n)


def _sum(one: int, sign: str, two: int) -> Fact:
    term = f"{number(one)} {sign} {number(two)}"
    result = number(one + two if sign == "plus" else one - two)
    questions = (f"What is {term}?", f"How much is {term}?", f"What's {term}?", sentence(term, "?"))
    return Fact("sum", questions, sentence(f"{term} is {result}"))


def sums() -> tuple[Fact, ...]:
    """All up to twenty plus twenty, tens with tens, and tens plus ones; none below zero, none above a hundred."""
    pairs = {(one, two) for one in range(21) for two in range(21)}
    tens = range(10, LARGEST + 1, 10)
    pairs |= {(one, two) for one in tens for two in tens} | {(one, two) for one in tens for two in range(1, 10)}
    plus = [_sum(one, "plus", two) for one, two in sorted(pairs) if one + two <= LARGEST]
    return (*plus, *(_sum(one, "minus", two) for one, two in sorted(pairs) if two <= one and (one <= 20 or two >= 10)))


def _counting() -> list[Fact]:
    facts = []
    for n in range(LARGEST):
        one, two = number(n), number(n + 1)
        after = (f"What comes after {one}?", f"Which number comes after {one}?")
        before = (f"What comes before {two}?", f"Which number comes before {two}?")
        facts.append(Fact("counting", after, sentence(f"{two} comes after {one}")))
        facts.append(Fact("counting", before, sentence(f"{one} comes before {two}")))
    return facts


def _calendar() -> list[Fact]:
    def how_many(unit: str, whole: str, n: int, *, verb: str = "are in") -> Fact:
        asked = (f"How many {unit} does {whole} have?", f"How many {unit} {verb} {whole}?")
        return Fact("dates", asked, sentence(f"{whole} has {words(n)} {unit}"))

    facts = [how_many("days", "a week", 7), how_many("months", "a year", 12), how_many("hours", "a day", 24),
        how_many("minutes", "an hour", 60), how_many("seconds", "a minute", 60)]  # fmt: skip
    facts += [how_many("days", month, n) for month, n in LENGTHS.items()]
    for kind, whole, names in (("day", "the week", DAYS), ("month", "the year", MONTHS)):
        for place, one in zip(ORDINALS, names, strict=False):
            asked = (f"What is the {place} {kind} of {whole}?", f"Which is the {place} {kind}?")
            facts.append(Fact("dates", asked, f"{one} is the {place} {kind} of {whole}."))
        asked = (f"What is the last {kind} of {whole}?", f"Which is the last {kind}?")
        facts.append(Fact("dates", asked, f"{names[-1]} is the last {kind} of {whole}."))
    facts += [
        Fact("dates", (f"Tell me the {kind}s of {whole}.", f"What are the {kind}s of {whole}?"), ", ".join(names) + ".")
        for kind, whole, names in (("day", "the week", DAYS),)
    ]
    return facts


SUMS: tuple[Fact, ...] = sums()
COUNTING: tuple[Fact, ...] = tuple(_counting())
DATES: tuple[Fact, ...] = tuple(_calendar())


def time_of_day(rng: Rng) -> str:
    """As "half past three", "quarter to nine", "seven o'clock"."""
    hour, sort = words(int(rng.integers(1, 13))), rng.random()
    if sort < 0.35:
        return f"{hour} o'clock"
    if sort < 0.6:
        return f"half past {hour}"
    side = pick(rng, ("past", "to"))
    return f"{pick(rng, MINUTES[side])} {side} {hour}"


def clock(rng: Rng) -> Utterance:
    at = time_of_day(rng)
    start = pick(rng, ("It is", "It's", "It is now"))
    return Utterance(f"{start} {at}.", "clock", f"Thank you, it is {at}.")


def wake_at(rng: Rng) -> Utterance:
    at = f"at {time_of_day(rng)}"
    at += f" on {pick(rng, DAYS)}" if rng.random() < 0.3 else ""
    verb = pick(rng, ("Wake me", "Please wake me", "Wake me up"))
    return Utterance(f"{verb} {at}.", "wake_at", f"Okay, I will wake you {at}.")


def number_is(rng: Rng) -> Utterance:
    n, what = number(int(rng.integers(LARGEST + 1))), pick(rng, ("number", "code"))
    return Utterance(f"The {what} is {n}.", "number_is", f"I have noted the {what} {n}.")


def age(rng: Rng) -> Utterance:
    n = number(int(rng.integers(1, LARGEST + 1)))
    who, name = ("I am", "you are") if rng.random() < 0.5 else ((one := pick(rng, NAMES)) + " is", one + " is")
    return Utterance(f"{who} {n} years old.", "age", f"Thank you, {name} {n} years old.")


def name_alone(rng: Rng) -> Utterance:
    one = pick(rng, NAMES)
    start = pick(rng, ("My name is", "I am", "Hello, I am", "Hi, my name is", "Hello, my name is", "This is"))
    return Utterance(f"{start} {one}.", "name_alone", f"Nice to meet you, {one}.")


STATEMENTS = (clock, wake_at, number_is, age, name_alone)
