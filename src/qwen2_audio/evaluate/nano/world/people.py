"""What people say to nano, beyond the sentences of its first lessons: to be spoken by any voice.

`spoken` draws one; `WORDS` with `FORMS`, `LISTS` and `ALIENS` are to be spoken from end to end. An utterance's `text`
is what is written down, its `answer` what is said in voice chat, and `aloud(text)` what a synthesiser is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from . import speakers
from .aliens import ALIENS, alien, aliens
from .alone import FORMS, LISTED, LISTS, WORDS, alone, spelled, word
from .facts import Fact
from .hundreds import COUNTING, DATES, STATEMENTS, SUMS
from .talk import SPOKEN, TALK, renewed
from .utterance import Utterance

__all__ = [
    "ALIENS",
    "FORMS",
    "KINDS",
    "LISTS",
    "WORDS",
    "alien",
    "aliens",
    "alone",
    "aloud",
    "answered",
    "joined",
    "spoken",
    "words_alone",
]
Rng = np.random.Generator
FILLERS = ("Um,", "Uh,", "Er,", "Hmm,")


def spoken(split: str, rng: Rng, kind: str | None = None) -> Utterance:
    """An utterance of `split`, by the shares of `KINDS` or of one kind.

    What has to be known as it is (words, small talk, facts) is the same in every split; the voices differ. Of lists,
    statements and commands each split has its own.
    """
    chosen = kind or str(rng.choice(list(KINDS), p=list(KINDS.values())))
    said = _MAKERS[chosen](split, rng)
    return Utterance(said.text, said.family, renewed(said.answer))


def aloud(text: str, rng: Rng | None = None) -> str:
    """What a synthesiser is given to say `text`: letters one by one; with `rng`, sometimes after "um".

    The filler is not written down.
    """
    if spelled(text):
        text = ", ".join(text.rstrip(".").split()) + "."
    if rng is not None and rng.random() < 0.08:
        return f"{FILLERS[int(rng.integers(len(FILLERS)))]} {text[0].lower() if text[:2] != 'I ' else 'I'}{text[1:]}"
    return text


def answered(said: list[Utterance]) -> str:
    """The answer to several utterances in a row: that to the last one that asks or orders something, or else to the
    last one."""
    asking = [one for one in said if one.text.endswith("?") or one.family in speakers.COMMAND_FAMILIES | {"wake_at"}]
    return (asking or said)[-1].answer


def joined(said: list[Utterance]) -> Utterance:
    """Several utterances in one window: all are written down, one is answered."""
    return Utterance(" ".join(one.text for one in said), "joined", answered(said))


def words_alone() -> Iterator[Utterance]:
    """Every word of the world in each of its forms."""
    for said in FORMS.values():
        yield from map(alone, said)


def _fact(*tables: tuple[Fact, ...]) -> Callable[[str, Rng], Utterance]:
    def make(split: str, rng: Rng) -> Utterance:
        facts = tables[int(rng.integers(len(tables)))]
        fact = facts[int(rng.integers(len(facts)))]
        return fact.asked(int(rng.integers(len(fact.questions))))

    return make


_MAKERS: dict[str, Callable[[str, Rng], Utterance]] = {
    "old": lambda split, rng: speakers.utterance(rng, split),
    "talk": _fact((*TALK, *SPOKEN)),
    "word": lambda split, rng: word(rng),
    "list": lambda split, rng: speakers.draw_from(rng, LISTED, split),
    "sum": _fact(SUMS),
    "number": _fact(COUNTING, DATES),
    "statement": lambda split, rng: speakers.draw_from(rng, STATEMENTS, split),
}
KINDS = {"old": 0.3, "talk": 0.14, "word": 0.2, "list": 0.14, "sum": 0.1, "number": 0.06, "statement": 0.06}
