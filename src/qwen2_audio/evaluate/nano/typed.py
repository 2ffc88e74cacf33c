"""What is typed without any sound, and the answer. All is drawn from the generator handed in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .speech.strange import unknown_words
from .wording import SEX, TRANSCRIBE, WHAT, pick
from .world.facts import CHAT, FACTS, Fact
from .world.hundreds import COUNTING, DATES, LARGEST, STATEMENTS, SUMS, number
from .world.speakers import command, draw_from, statement
from .world.talk import TALK, renewed
from .world.utterance import a

Rng = np.random.Generator
NO_SOUND = "There is no sound with this message."
UNKNOWN = "I do not know that."
ABOUT_A_SOUND = (
    *(question for questions in WHAT.values() for question in questions), *TRANSCRIBE, *SEX, "Listen.",
    "What is in the background?", "Is anybody speaking?", "Is this a dog?", "Is it a bell?", "Do you hear a bird?",
    "Is there a voice?", "Who is speaking?", "What is said?", "Answer the speaker.", "What is this?",
    "What did I say?", "Name both sounds.",
)  # fmt: skip
OUTSIDE = (
    "What is {a}?", "Tell me about the {n}.", "Where is the {n}?", "Who made the {n}?", "How do I find {a}?",
    "Why is the {n} so big?", "What do you know about the {n}?", "When was the {n} made?",
)  # fmt: skip
FIGURES = ("What is {0} {2} {1}?", "{0} {2} {1}", "{0}{2}{1}", "{0} {2} {1} =", "How much is {0} {2} {1}?")
_VALUES = {number(n): n for n in range(LARGEST + 1)}
_HEARING = CHAT[5].answer  # is not said where nothing can be heard
_TALK = tuple(fact for fact in (*CHAT, *TALK) if fact.answer != _HEARING)
_CAN_IT_HEAR = tuple(question for fact in (*CHAT, *TALK) if fact.answer == _HEARING for question in fact.questions)
_FACTS = tuple(fact for fact in FACTS if fact.family != "chat")


def typed(rng: Rng, split: str, *, sound: bool = False) -> tuple[str, str]:
    """A text, and what nano answers. Commands, statements and what it does not know are those of `split`.

    `sound`: there is a clip in the conversation, so that no question is about one that is missing.
    """
    answer = NO_SOUND
    while answer == NO_SOUND:
        make = _SORTS[int(rng.choice(len(_SORTS), p=[share for _, share in _SORTS]))][0]
        text, answer = make(rng, split)
        if not sound:
            break
    return _in_haste(text, rng), renewed(answer)


def _in_haste(text: str, rng: Rng) -> str:
    """As many people type: one text in four in small letters, most of these without an end."""
    if rng.random() < 0.75:
        return text
    return text.lower() if rng.random() < 0.3 else text.lower().rstrip(".?!")


def _one_of(facts: tuple[Fact, ...]) -> Callable[[Rng, str], tuple[str, str]]:
    def make(rng: Rng, split: str) -> tuple[str, str]:
        fact = pick(rng, facts)
        return pick(rng, fact.questions), fact.answer

    return make


def _sum(rng: Rng, split: str) -> tuple[str, str]:
    """With words, or with figures: "12 + 9"."""
    fact = pick(rng, SUMS)
    if rng.random() < 0.5:
        return pick(rng, fact.questions), fact.answer
    term = fact.questions[-1].rstrip("?").lower()
    sign = "plus" if " plus " in term else "minus"
    values = [_VALUES[one] for one in term.split(f" {sign} ")]
    shown = {"plus": "+", "minus": "-"}[sign] if rng.random() < 0.8 else f" {sign} "
    return " ".join(pick(rng, FIGURES).format(*values, shown).split()), fact.answer


def _about_a_sound(rng: Rng, split: str) -> tuple[str, str]:
    return pick(rng, ABOUT_A_SOUND if rng.random() < 0.9 else _CAN_IT_HEAR), NO_SOUND


def _said(rng: Rng, split: str) -> tuple[str, str]:
    make = pick(rng, (command, statement, lambda rng, split: draw_from(rng, STATEMENTS, split)))
    utterance = make(rng, split)
    return utterance.text, utterance.answer


def _outside(rng: Rng, split: str) -> tuple[str, str]:
    word = pick(rng, unknown_words()[split])
    return pick(rng, OUTSIDE).format(n=word, a=a(word)), UNKNOWN


_SORTS: tuple[tuple[Callable[[Rng, str], tuple[str, str]], float], ...] = (
    (_one_of(_TALK), 0.24),
    (_one_of(_FACTS), 0.2),
    (_sum, 0.14),
    (_one_of((*COUNTING, *DATES)), 0.06),
    (_about_a_sound, 0.16),
    (_said, 0.12),
    (_outside, 0.08),
)
