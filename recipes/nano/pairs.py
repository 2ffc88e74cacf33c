"""Pairs for DPO: what should have been said, and the mistakes that users mind most.

Wrong facts, echoes of the question, words that nobody said, and deafness to words that are clear.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .clips import Library
from .conversations import Conversation, ask, assistant, is_voice, pick, pick_weighted, transcribe, user, voice_chat
from .corpus import row_of
from .mix import SPEECH, Clip
from .sounds.kinds import NAMED
from .words import WORDS
from .world.facts import FAMILIES
from .world.speakers import COMMAND_FAMILIES, utterance

Rng = np.random.Generator
Pair = tuple[Conversation, str]  # a conversation that ends in the right answer, and the wrong one
SHARES = {"fact": 0.38, "invented": 0.3, "deaf": 0.16, "misheard": 0.16}


def wrong_answer(clip: Clip, rng: Rng) -> str:
    """To a spoken question or command: an echo, another fact's answer, or this one with another word in it."""
    if rng.random() < 0.3:
        return clip.text
    if clip.family in FAMILIES:
        others = [fact.answer for fact in FAMILIES[clip.family] if fact.answer != clip.answer]
        if clip.family == "arithmetic":  # the same sum with another result is the mistake that is made
            said = clip.answer.rsplit(" is ", 1)[0]
            wrong = f"{said} is {pick(rng, others).rsplit(' is ', 1)[1]}"
            return wrong if wrong != clip.answer else clip.text
        if rng.random() < 0.6:
            return _other_end(clip.answer, pick(rng, others))
        return str(pick(rng, others))
    return _another(clip, rng).answer


def _other_end(answer: str, other: str) -> str:
    """`answer` with the last word of `other`: "The capital of France is Rome."."""
    changed = " ".join([*answer.split(" ")[:-1], other.split(" ")[-1]])
    return changed if changed != answer else other


def _another(clip: Clip, rng: Rng):
    """Another utterance, of the same family where one turns up soon."""
    for _ in range(60):
        other = utterance(rng, "train")
        if other.text != clip.text and other.answer != clip.answer and other.family == clip.family:
            return other
    while (other := utterance(rng, "train")).text == clip.text or other.answer == clip.answer:
        pass
    return other


class PairWriter:
    """Draws pairs about the clips of a library."""

    def __init__(self, library: Library) -> None:
        self.clips = [entry.clip for entry in library.entries]
        short = [i for i, clip in enumerate(self.clips) if clip.seconds < 5]
        speech = [i for i in short if self.clips[i].kind == SPEECH]
        answered = (*FAMILIES, *COMMAND_FAMILIES)
        self._pools = {
            "fact": [i for i in speech if self.clips[i].family in answered],
            "invented": [i for i in short if self.clips[i].kind not in WORDS and self.clips[i].kind != SPEECH],
            "deaf": speech,
            "misheard": speech,
        }
        self._makers: dict[str, Callable[[int, Rng], Pair]] = {
            "fact": self._fact,
            "invented": self._invented,
            "deaf": self._deaf,
            "misheard": self._misheard,
        }

    def write(self, rng: Rng) -> Pair:
        sort = pick_weighted(rng, tuple(SHARES.items()))
        return self._makers[sort](pick(rng, self._pools[sort]), rng)

    def _fact(self, i: int, rng: Rng) -> Pair:
        clip = self.clips[i]
        return Conversation([user(i), assistant(clip.answer)], [i]), wrong_answer(clip, rng)

    def _invented(self, i: int, rng: Rng) -> Pair:
        """Nothing that can be named or understood: words, an answer or a sound would be made up."""
        clip = self.clips[i]
        if rng.random() < 0.4:
            right, rejected = (
                Conversation([user(i), assistant(voice_chat(clip, rng))], [i]),
                utterance(rng, "train").answer,
            )
        else:
            question, answer = transcribe(clip, rng) if rng.random() < 0.6 else ask(clip, rng)
            right, rejected = Conversation([user(i, question), assistant(answer)], [i]), utterance(rng, "train").text
        if not is_voice(clip) and rng.random() < 0.6:
            rejected = f"I hear {pick(rng, WORDS[pick(rng, NAMED)].phrases)}."
        return right, rejected

    def _deaf(self, i: int, rng: Rng) -> Pair:
        """Clear words, and nano says that it cannot make them out, or that nobody speaks."""
        question, answer = transcribe(self.clips[i], rng)
        rejected = "I hear a voice, but I cannot make out the words."
        return Conversation([user(i, question), assistant(answer)], [i]), rejected

    def _misheard(self, i: int, rng: Rng) -> Pair:
        question, answer = transcribe(self.clips[i], rng)
        return Conversation([user(i, question), assistant(answer)], [i]), _another(self.clips[i], rng).text


def write_pairs(library: Library, count: int, seed: int, path: Path) -> None:
    """A data file for DPO; it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng, writer, part = np.random.default_rng((seed, 7)), PairWriter(library), path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as file:
        while count:
            right, rejected = writer.write(rng)
            if right.messages[-1]["content"] != rejected:
                row = row_of(right, library, path.parent) | {"rejected_response": rejected}
                file.write(json.dumps(row) + "\n")
                count -= 1
    part.rename(path)
