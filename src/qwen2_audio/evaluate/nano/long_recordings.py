"""Questions about recordings longer than a window, as they are put to a part, to notes and to a transcript.

The sentences around them are those of `longform.questions.wording`, word for word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from ...longform.questions import wording
from ...longform.settings import TranscriptionSettings
from ...types import Part
from .mix import SPEECH, STRANGE, Clip
from .sounds.kinds import NAMED
from .wording import TRANSCRIBE, WHAT, abstention, has_name, noun_phrase, pick
from .words import ABSTENTIONS, WORDS
from .world.commands import DEVICES, FOOD, NAMES, ROOMS
from .world.facts import CAPITALS, DAYS
from .world.sentences import THINGS
from .world.speakers import held_out_sentence
from .world.utterance import plain

Rng = np.random.Generator
NOTHING = "Nothing."
WHAT_OF_IT = WHAT | {
    "I hear {x}.": (*WHAT["I hear {x}."], "What sounds are there?", "Which sounds do you hear?",
        "What sounds do you hear?",
        "Which sounds are in this recording?", "What happens?", "Name the sounds."),
}  # fmt: skip
SAID = (
    *TRANSCRIBE,
    "What is said?",
    "What is said in this recording?",
    "What do they say?",
    "What does the speaker say?",
)
ABOUT = (
    "What is said about {x}?", "What does the speaker say about {x}?", "What do they say about {x}?", "What about {x}?",
    "Does anybody talk about {x}?", "Does anybody say something about {x}?", "What do you hear about {x}?",
)  # fmt: skip
IS_THERE = ("Do you hear {n}?", "Can you hear {n}?", "Is there {n}?", "Is there {n} in this recording?", "Is this {n}?")
# What a sentence can be about, and how it is called in a question.
TOPICS = {plain(name): name for name in (*NAMES, *DAYS, *CAPITALS, *CAPITALS.values())} | {
    thing: f"the {thing}" for thing in (*THINGS, *DEVICES, *ROOMS, *FOOD, "timer", "train", "bus", "code", "number")
}
_BETWEEN = re.compile(r"(?<=[.?!]) ")


def topics(text: str) -> list[str]:
    """Keys of TOPICS that are in `text`."""
    words = f" {plain(text)} "
    return [topic for topic in TOPICS if f" {topic} " in words]


def said_about(texts: Sequence[str], topic: str) -> str:
    """The sentences that name a topic, or "Nothing." """
    sentences = [one for text in texts for one in _BETWEEN.split(text) if f" {topic} " in f" {plain(one)} "]
    return " ".join(dict.fromkeys(sentences)) or NOTHING


def times(rng: Rng, count: int) -> list[tuple[float, float]]:
    """Consecutive parts of a recording of up to an hour, 2 to 30 s each."""
    start = float(rng.choice((0, 0, rng.uniform(10, 300), rng.uniform(10, 3600))))
    found = []
    for _ in range(count):
        end = start + float(rng.uniform(2, 30))
        found.append((start, end))
        start = end + float(rng.choice((0, 0, rng.uniform(0, 60))))
    return found


def part_sentence(rng: Rng) -> str:
    """What follows the question that is put to a part."""
    return wording.part_sentence(TranscriptionSettings(), *times(rng, 1)[0])


def ask_part(clip: Clip, rng: Rng) -> tuple[str, str]:
    """A question about a part of a recording, and its answer: "Nothing." where the part does not hold one."""
    chance = rng.random()
    if chance < 0.3:
        return pick(rng, SAID), clip.text or (ABSTENTIONS["voice"].sentences[0] if _is_voice(clip) else NOTHING)
    if chance < 0.5:
        return _about(clip, rng)
    if chance < 0.75:
        return _is_there(clip, rng)
    style = pick(rng, tuple(WHAT_OF_IT))
    if has_name(clip):
        return pick(rng, WHAT_OF_IT[style]), style.format(x=noun_phrase(clip, rng))
    return pick(rng, WHAT_OF_IT[style]), abstention(clip) if _is_voice(clip) else NOTHING


def _is_voice(clip: Clip) -> bool:
    return clip.kind in (SPEECH, STRANGE, "voice")


def _about(clip: Clip, rng: Rng) -> tuple[str, str]:
    known = topics(clip.text)
    topic = pick(rng, known) if known and rng.random() < 0.6 else pick(rng, tuple(TOPICS))
    return pick(rng, ABOUT).format(x=TOPICS[topic]), said_about([clip.text], topic)


def _is_there(clip: Clip, rng: Rng) -> tuple[str, str]:
    heard = clip.background or clip.kind
    asked = heard if heard in WORDS and rng.random() < 0.6 else pick(rng, NAMED)
    question = pick(rng, IS_THERE[:2] if asked == "footsteps" else IS_THERE).format(n=WORDS[asked].noun)
    return question, f"Yes, I hear {WORDS[asked].phrases[0]}." if asked == heard else NOTHING


def about_notes(rng: Rng, split: str) -> tuple[str, str, str, str]:
    """Two to four notes before a question, the question, the sentence behind it, and the answer that has them all."""
    count = int(rng.choice((2, 2, 3, 4)))
    question, notes, answer = (_sounds if rng.random() < 0.5 else _sentences)(rng, count, split)
    length, lines = _lines(rng, notes)
    return wording.NOTES_HEAD.format(length=length) + lines + "\n", question, wording.NOTES_TAIL, answer


def _sentences(rng: Rng, count: int, split: str) -> tuple[str, list[str], str]:
    """What is said, or what is said about one thing: then all notes are about that."""
    first, sought = held_out_sentence(rng, split).text, rng.random() < 0.5
    topic = pick(rng, known) if sought and (known := topics(first)) else ""
    notes = [first]
    while len(notes) < min(count, 3):
        text = held_out_sentence(rng, split).text
        if not topic or topic in topics(text):
            notes.append(text)
    question = pick(rng, ABOUT).format(x=TOPICS[topic]) if topic else pick(rng, SAID)
    return question, notes, " ".join(dict.fromkeys(notes))


def _sounds(rng: Rng, count: int, split: str) -> tuple[str, list[str], str]:
    """A question, notes on sounds, one of which may be a voice, and all of them in one sentence, each once."""
    style = pick(rng, tuple(WHAT_OF_IT))
    voices = ("a man speaking", "a woman speaking")
    phrases = [pick(rng, voices) if rng.random() < 0.1 else WORDS[pick(rng, NAMED)].phrases[0] for _ in range(count)]
    once = list(dict.fromkeys(phrases))
    together = " and ".join([", ".join(once[:-1]), once[-1]] if len(once) > 1 else once)
    return pick(rng, WHAT_OF_IT[style]), [style.format(x=one) for one in phrases], style.format(x=together)


def about_transcript(rng: Rng, split: str) -> tuple[str, str, str]:
    """A transcript of two to five sentences, a question about one thing that is said, or not; the answer."""
    said = [held_out_sentence(rng, split).text for _ in range(rng.integers(2, 6))]
    known = topics(" ".join(said))
    topic = pick(rng, known) if known and rng.random() < 0.8 else pick(rng, tuple(TOPICS))
    length, lines = _lines(rng, said)
    head = wording.TRANSCRIPT_HEAD.format(length=length)
    return head + lines + "\n", pick(rng, ABOUT).format(x=TOPICS[topic]), said_about(said, topic)


def _lines(rng: Rng, texts: Sequence[str]) -> tuple[str, str]:
    """The length of a recording of which `texts` are parts, and the parts with their times."""
    found = times(rng, len(texts))
    parts = [Part(start, end, text) for (start, end), text in zip(found, texts, strict=True)]
    return wording.clock(found[-1][1] + float(rng.uniform(0, 5))), wording.note_lines(parts)
