"""Pairs for DPO: what should have been said, and what the fine-tuned model said instead.

Made-up mistakes teach it not to say what it would not have said anyway. So the model is asked about clips of the
development split, whose sentences and renderings it has not been trained on: first for its best answer, then for
drawn ones, and every wrong one becomes a pair. Mistakes are wrong facts, words misheard, women taken for men; words,
answers or sounds invented where there are none; and deafness to words that are clear.

    the right answer  >  "I cannot make out the words."  >  a wrong fact

The sentence in the middle stands on both sides. As the rejected one alone it would fall to pieces, or never be said
again; as the chosen one alone it would be said of everything. Where words are only to be written down it costs more
than one that is wrong, so there it is rejected more often.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from qwen2_audio.evaluate.nano.examination import BATCH, Listener
from qwen2_audio.evaluate.nano.long_recordings import NOTHING, ask_part, part_sentence
from qwen2_audio.evaluate.nano.mix import SPEECH, Clip
from qwen2_audio.evaluate.nano.questions import abstains
from qwen2_audio.evaluate.nano.words import WORDS, kinds_named
from qwen2_audio.evaluate.nano.world.utterance import plain

from .clips import Library
from .conversations import UNCLEAR, Conversation, ask, assistant, is_voice, sex, transcribe, user, voice_chat
from .corpus import row_of
from .people import with_renewed_answers

Rng = np.random.Generator
DRAWS = 1  # answers drawn where the best one is right
LONGEST = 6.0  # seconds
SEXES = 0.3  # of the second questions about speech: whether a man speaks or a woman; the others want it written down
PARTS = 1 / 6  # of the clips are asked about as parts of a recording, too
ALONE = ("word", "chat", "talk", "several", "any_words", "figures", "letters")  # families that are no long sentence
HEARD = 600  # transcripts that come before caution, whether the model had them right or not


@dataclass(frozen=True)
class Asked:
    """One question about one clip, with the right answer."""

    conversation: Conversation  # ends in the right answer
    clip: Clip
    chat: bool = False  # sound alone: a fact is asked for
    exact: bool = False  # another name of a sound is a mistake, too

    @property
    def truth(self) -> str:
        return str(self.conversation.messages[-1]["content"])

    def wrong(self, said: str) -> bool:
        """Whether `said` is a mistake. Sounds may be called by any of their names."""
        if self.exact:
            return plain(said) != plain(self.truth)
        if self.clip.kind in WORDS:
            return kinds_named(said) != {self.clip.kind}
        if self.clip.kind != SPEECH:
            return plain(said) != plain(self.truth) and not abstains(said)
        return plain(said) != plain(self.truth)


def questions(library: Library, rng: Rng, *, people: bool = False) -> Iterator[Asked]:
    """Two of every clip with words or without a name, one of every sound with a name.

    `people`: of a checkpoint that was taught by `people.PEOPLE`: one clip in six is a part of a recording, too.
    """
    for i, entry in enumerate(library.entries):
        clip = with_renewed_answers(entry.clip) if people else entry.clip
        if clip.seconds > LONGEST:
            continue
        if people and rng.random() < PARTS:
            question, answer = ask_part(clip, rng)
            told = [user(i, question, part_sentence(rng)), assistant(answer)]
            yield Asked(Conversation(told, [i]), clip, exact=answer == NOTHING)
        yield Asked(Conversation([user(i), assistant(voice_chat(clip, rng))], [i]), clip, chat=True)
        if clip.kind in WORDS:
            continue
        if clip.kind == SPEECH and rng.random() < SEXES:
            question, answer = sex(clip, rng)
        elif is_voice(clip) or rng.random() < 0.5:
            question, answer = transcribe(clip, rng)
        else:
            question, answer = ask(clip, rng)
        yield Asked(Conversation([user(i, question), assistant(answer)], [i]), clip)


@dataclass(frozen=True)
class Preferred:
    """A conversation that ends as it should, and how it should not."""

    sort: str  # "truth" before a mistake, "hearing" before deafness, "caution" before a wrong fact, "courage" before it
    conversation: Conversation
    rejected: str


def mistakes(model: Path, library: Library, rng: Rng, *, people: bool = False) -> Iterator[Preferred]:
    """What the checkpoint `model` says wrongly. "courage" comes with every clear answer: there are more than wanted."""
    from rich.progress import track

    listener = Listener(model)
    asked = sorted(questions(library, rng, people=people), key=lambda one: one.clip.seconds)  # little is padded
    batches = [asked[at : at + BATCH] for at in range(0, len(asked), BATCH)]
    for number, batch in enumerate(track(batches, "looking for mistakes")):
        for draw in range(1 + DRAWS):
            told = [_heard(one, library) for one in batch]
            answers = listener.answers(told, seed=(number, draw)) if draw else listener.answers(told)
            for one, said in zip(batch, answers, strict=True):
                yield from _preferred(one, said.strip(), best=not draw)
            batch = [one for one in batch if one.clip.kind == SPEECH or one.clip.kind not in WORDS]
            if not batch:
                break


def _preferred(asked: Asked, said: str, *, best: bool) -> Iterator[Preferred]:
    """`best`: what was said is the model's best answer, not a drawn one."""
    gave_up = asked.clip.kind == SPEECH and abstains(said)
    if said and asked.wrong(said):
        yield Preferred("hearing" if gave_up else "truth", asked.conversation, said)
    if asked.clip.kind == SPEECH and best and not gave_up:
        if not asked.wrong(said):
            yield Preferred("courage", asked.conversation, UNCLEAR)
        elif asked.chat:
            cautious = [*asked.conversation.messages[:-1], assistant(UNCLEAR)]
            yield Preferred("caution", replace(asked.conversation, messages=cautious), said)


def write_pairs(model: Path, library: Library, seed: int, path: Path, *, people: bool = False) -> dict[str, int]:
    """A data file for DPO, each pair once; it is there whole or not at all. Returns how many there are of each sort.

    `people`: of a checkpoint that was taught by `people.PEOPLE`. Then as many more transcripts come before caution,
    words alone and lists first, as there are pairs in which caution comes before words that it made of those it cannot
    know: else it would decline what it knows.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rng, rows, declined = np.random.default_rng((seed, 7)), dict[str, str](), 0
    for one in mistakes(model, library, rng, people=people):
        row = row_of(one.conversation, library, path.parent) | {"rejected_response": one.rejected}
        if (line := json.dumps(row)) not in rows:
            rows[line] = one.sort
            declined += one.sort == "truth" and one.conversation.messages[-1]["content"] == UNCLEAR
    counts = Counter(rows.values())
    keep = (counts["caution"] - counts["hearing"]) / max(1, counts["courage"])
    lines = [line for line, sort in rows.items() if sort != "courage" or rng.random() < keep]
    for clear in _clear(library, rng, declined if people else 0):
        row = row_of(clear.conversation, library, path.parent) | {"rejected_response": UNCLEAR}
        line = json.dumps(row)
        if line not in rows:
            rows[line] = "heard"
            lines.append(line)
    part = path.with_suffix(".part")
    part.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    part.rename(path)
    return dict(Counter(rows[line] for line in lines))


def _clear(library: Library, rng: Rng, words: int) -> Iterator[Asked]:
    """HEARD clips whose words are to be written down, and `words` more: words alone and lists before all others."""
    clear = [one for one in questions(library, rng) if one.clip.kind == SPEECH and one.truth == one.clip.text]
    order = [clear[number] for number in rng.permutation(len(clear))]
    yield from order[:HEARD]
    yield from sorted(order[HEARD:], key=lambda one: one.clip.family not in ALONE)[:words]


def _heard(asked: Asked, library: Library) -> list[dict]:
    """The conversation up to the answer, its clips as files."""
    messages = []
    for message in asked.conversation.messages[:-1]:
        content = message["content"]
        if not isinstance(content, str):
            content = [{**p, "audio": str(library.wav(p["audio"]))} if "audio" in p else p for p in content]
        messages.append({**message, "content": content})
    return messages
