"""Draws utterances of a split."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .commands import COMMANDS
from .facts import FACTS, FAMILIES
from .sentences import SENTENCES
from .utterance import Utterance, split_of

Rng = np.random.Generator
# How often a training utterance is of each sort; arithmetic has as many facts as all other families together.
SHARES = {"fact": 0.48, "command": 0.24, "sentence": 0.28}
ARITHMETIC = 0.42  # of the facts; the rest is shared evenly by fact
COMMAND_FAMILIES = frozenset(make.__name__ for make in COMMANDS)


def known(rng: Rng) -> Utterance:
    """A question that nano knows the answer to; training and test share these, in other renderings."""
    family = FAMILIES["arithmetic"] if rng.random() < ARITHMETIC else _OTHERS
    fact = family[int(rng.integers(len(family)))]
    return fact.asked(int(rng.integers(len(fact.questions))))


def drawn(rng: Rng, makers: tuple[Callable[[Rng], Utterance], ...], split: str) -> Utterance:
    """From one of `makers`, of the sentences that `split` owns."""
    make = makers[int(rng.integers(len(makers)))]
    while split_of((found := make(rng)).text) != split:
        pass
    return found


def command(rng: Rng, split: str) -> Utterance:
    return drawn(rng, COMMANDS, split)


def statement(rng: Rng, split: str) -> Utterance:
    return drawn(rng, SENTENCES, split)


def held_out(rng: Rng, split: str) -> Utterance:
    """A sentence that only `split` has: half of them commands."""
    return command(rng, split) if rng.random() < 0.5 else statement(rng, split)


def utterance(rng: Rng, split: str) -> Utterance:
    """Any, by `SHARES`."""
    sort = rng.choice(list(SHARES), p=list(SHARES.values()))
    if sort == "fact":
        return known(rng)
    return command(rng, split) if sort == "command" else statement(rng, split)


_OTHERS = tuple(fact for fact in FACTS if fact.family != "arithmetic")
