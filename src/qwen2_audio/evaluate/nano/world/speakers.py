"""Draws utterances of a split."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .commands import COMMANDS
from .facts import FACTS, FAMILIES
from .sentences import SENTENCES
from .utterance import Utterance, split_of

Rng = np.random.Generator
# The share of each sort in training's utterances. Arithmetic has as many facts as all other families together.
SHARES = {"fact": 0.48, "command": 0.24, "sentence": 0.28}
ARITHMETIC = 0.42  # of the facts; the rest is shared evenly by fact
COMMAND_FAMILIES = frozenset(make.__name__ for make in COMMANDS)


def known_question(rng: Rng) -> Utterance:
    """A question that nano knows the answer to. Training and test share these; their renderings differ."""
    family = FAMILIES["arithmetic"] if rng.random() < ARITHMETIC else _OTHERS
    fact = family[int(rng.integers(len(family)))]
    return fact.asked(int(rng.integers(len(fact.questions))))


def draw_from(rng: Rng, makers: tuple[Callable[[Rng], Utterance], ...], split: str) -> Utterance:
    """An utterance by one of `makers` whose text belongs to `split`."""
    make = makers[int(rng.integers(len(makers)))]
    while split_of((candidate := make(rng)).text) != split:
        pass
    return candidate


def command(rng: Rng, split: str) -> Utterance:
    return draw_from(rng, COMMANDS, split)


def statement(rng: Rng, split: str) -> Utterance:
    return draw_from(rng, SENTENCES, split)


def held_out_sentence(rng: Rng, split: str) -> Utterance:
    """A sentence that only `split` has: half of them commands."""
    return command(rng, split) if rng.random() < 0.5 else statement(rng, split)


def utterance(rng: Rng, split: str) -> Utterance:
    """Any, by `SHARES`."""
    sort = rng.choice(list(SHARES), p=list(SHARES.values()))
    if sort == "fact":
        return known_question(rng)
    return command(rng, split) if sort == "command" else statement(rng, split)


_OTHERS = tuple(fact for fact in FACTS if fact.family != "arithmetic")
