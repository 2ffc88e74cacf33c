"""Pairs for DPO: what should have been said, and what the fine-tuned model said instead.

Made-up mistakes teach it not to say what it would not have said anyway. So the model is asked about clips of the
development split, whose sentences and renderings it has not been trained on: first for its best answer, then for
drawn ones, and every wrong one becomes a pair. Mistakes are wrong facts, words misheard; words, answers or sounds
invented where there are none; and deafness to words that are clear.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .clips import Library
from .conversations import UNCLEAR, Conversation, ask, assistant, is_voice, transcribe, user, voice_chat
from .corpus import row_of
from .evaluate import BATCH, Listener
from .examination import abstains
from .mix import SPEECH, Clip
from .words import WORDS, kinds_named
from .world.utterance import plain

Rng = np.random.Generator
DEAF = 0.25  # of the mistakes about speech come again, with the claim of having understood nothing as the wrong answer
DRAWS = 1  # answers drawn where the best one is right
LONGEST = 6.0  # seconds


@dataclass(frozen=True)
class Asked:
    """One question about one clip, with the right answer."""

    conversation: Conversation  # ends in the right answer
    clip: Clip

    @property
    def truth(self) -> str:
        return str(self.conversation.messages[-1]["content"])

    def wrong(self, said: str) -> bool:
        """Whether `said` is a mistake. Sounds may be called by any of their names."""
        if self.clip.kind in WORDS:
            return kinds_named(said) != {self.clip.kind}
        if self.clip.kind != SPEECH:
            return plain(said) != plain(self.truth) and not abstains(said)
        return plain(said) != plain(self.truth)


def questions(library: Library, rng: Rng) -> Iterator[Asked]:
    """Two of every clip with words or without a name, one of every sound with a name."""
    for i, entry in enumerate(library.entries):
        clip = entry.clip
        if clip.seconds > LONGEST:
            continue
        yield Asked(Conversation([user(i), assistant(voice_chat(clip, rng))], [i]), clip)
        if clip.kind in WORDS:
            continue
        question, answer = transcribe(clip, rng) if is_voice(clip) or rng.random() < 0.5 else ask(clip, rng)
        yield Asked(Conversation([user(i, question), assistant(answer)], [i]), clip)


def mistakes(model: Path, library: Library, rng: Rng) -> Iterator[tuple[Conversation, str]]:
    """Conversations that end in the right answer, each with a wrong one that the checkpoint `model` gives."""
    from rich.progress import track

    listener = Listener(model)
    asked = sorted(questions(library, rng), key=lambda one: one.clip.seconds)  # little is padded
    batches = [asked[at : at + BATCH] for at in range(0, len(asked), BATCH)]
    for batch in track(batches, "looking for mistakes"):
        for draw in range(1 + DRAWS):
            told = [_heard(one, library) for one in batch]
            options = {"do_sample": True, "temperature": 1.0, "top_k": 0, "seed": draw} if draw else {}
            for one, said in zip(batch, listener.answers(told, **options), strict=True):
                if one.wrong(said) and said.strip():
                    yield one.conversation, said
                    # Or it would learn to say nothing wherever it may be wrong. More of these break the sentence.
                    if one.clip.kind == SPEECH and rng.random() < DEAF:
                        yield one.conversation, UNCLEAR
            batch = [one for one in batch if one.clip.kind == SPEECH or one.clip.kind not in WORDS]
            if not batch:
                break


def write_pairs(model: Path, library: Library, seed: int, path: Path) -> None:
    """A data file for DPO, each mistake once; it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng, part, seen = np.random.default_rng((seed, 7)), path.with_suffix(".part"), set()
    with part.open("w", encoding="utf-8") as file:
        for right, said in mistakes(model, library, rng):
            row = row_of(right, library, path.parent) | {"rejected_response": said}
            line = json.dumps(row)
            if line not in seen:
                seen.add(line)
                file.write(line + "\n")
    part.rename(path)


def _heard(asked: Asked, library: Library) -> list[dict]:
    """The conversation up to the answer, its clips as files."""
    messages = []
    for message in asked.conversation.messages[:-1]:
        content = message["content"]
        if not isinstance(content, str):
            content = [{**p, "audio": str(library.wav(p["audio"]))} if "audio" in p else p for p in content]
        messages.append({**message, "content": content})
    return messages
