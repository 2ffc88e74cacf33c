"""The second part of nano's examination: what people say and type to it, and questions about long recordings.

Rows `nano.people.*`. Speech is by the synthesisers of the first part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ...inputs.messages import user
from ...types import Message
from .long_recordings import NOTHING, about_notes, about_transcript, ask_part, part_sentence
from .mix import Clip, Samples, clip_seed, render_clip
from .questions import Question, same_words
from .scene import render_speech
from .sounds.kinds import NAMED
from .typed import typed
from .wording import TRANSCRIBE, WHAT
from .words import kinds_named
from .world.alone import any_words, figures, several, word
from .world.people import spoken
from .world.speakers import draw_from, held_out_sentence
from .world.utterance import Utterance, plain

Rng = np.random.Generator
TEXT = Clip("text", 0.0, -120.0)  # of questions without a clip
_NAMING = (*(style.split("{")[0] for style in WHAT), "Yes, I hear ")
TOKENS = 128  # of an answer: it may have three sentences


def people_questions(count: int) -> Iterator[Question]:
    """`count` questions a row."""
    yield from _typed(count)
    for kind in ("talk", "sum", "number", "statement"):
        yield from _spoken(kind, count)
    yield from _written_down("nano.people.words.exact", "variant", count, word)
    yield from _written_down("nano.people.lists.wer", "variant", count, _listed)
    yield from _parts(count)
    yield from _notes(count)
    yield from _transcripts(count)


def same_answer(answer: str, truth: str) -> bool:
    """The same words; or, of an answer that names sounds, the same kinds and voices by any of their names."""
    if same_words(answer, truth):
        return True
    names_sounds = truth.startswith(_NAMING) and kinds_named(truth) and answer.startswith(_NAMING)
    return bool(names_sounds) and kinds_named(answer) == kinds_named(truth) and _voices(answer) == _voices(truth)


def _voices(text: str) -> set[str]:
    return set(plain(text).split()) & {"man", "woman"}


def _rng(about: str, number: int) -> Rng:
    return np.random.default_rng(clip_seed(f"test {about}", number))


def _text(row: str, text: list[str], truth: str) -> Question:
    messages: list[Message] = [{"role": "user", "content": [{"type": "text", "text": part} for part in text]}]
    return Question((row,), messages, TEXT, truth, same_answer, TOKENS)


def _about_clip(row: str, wave: Samples, clip: Clip, text: list[str], truth: str) -> Question:
    first = user(None, audio=(wave, 16_000))
    parts = [{"type": "text", "text": part} for part in text]
    messages: list[Message] = [{**first, "content": [*first["content"], *parts]}]
    return Question((row,), messages, clip, truth, same_answer, TOKENS)


def _typed(count: int) -> Iterator[Question]:
    """Texts without a clip. Commands, statements and words it does not know are the test's own."""
    for i in range(count):
        text, answer = typed(_rng("typed", i), "test")
        yield _text("nano.people.typed.accuracy", [text], answer)


def _spoken(kind: str, count: int) -> Iterator[Question]:
    """One kind of utterance, answered in voice chat; unseen variants of a voice every second time."""
    row = f"nano.people.{kind}.accuracy"
    for i in range(count):
        group = ("seen", "variant")[i % 2]
        wave, clip = render_speech("test", i, group, lambda rng: spoken("test", rng, kind), about=row)
        yield _about_clip(row, wave, clip, [], clip.answer)


def _written_down(row: str, group: str, count: int, draw: Callable[[Rng], Utterance]) -> Iterator[Question]:
    for i in range(count):
        wave, clip = render_speech("test", i, group, draw, about=row)
        yield _about_clip(row, wave, clip, [TRANSCRIBE[i % len(TRANSCRIBE)]], clip.text)


def _listed(rng: Rng) -> Utterance:
    return draw_from(rng, (several, any_words, figures), "test")


def _parts(count: int) -> Iterator[Question]:
    """Parts of recordings: as many questions that they do not answer as such that they do.

    Every second part has speech, every other one a sound with a name.
    """
    for i in range(count):
        rng = _rng("parts", i)
        if i % 2:
            wave, clip = render_speech("test", i, "seen", lambda rng: held_out_sentence(rng, "test"), about="parts")
        else:
            wave, clip = render_clip("test", i // 2, NAMED[i // 2 % len(NAMED)])
        for row, wanted in (("nano.people.part.nothing", True), ("nano.people.part.accuracy", False)):
            question, answer = ask_part(clip, rng)
            while (plain(answer) == plain(NOTHING)) != wanted:
                question, answer = ask_part(clip, rng)
            yield _about_clip(row, wave, clip, [question, part_sentence(rng)], answer)


def _notes(count: int) -> Iterator[Question]:
    for i in range(count):
        notes, question, then, answer = about_notes(_rng("notes", i), "test")
        yield _text("nano.people.notes.accuracy", [notes, question, then], answer)


def _transcripts(count: int) -> Iterator[Question]:
    for i in range(count):
        transcript, question, answer = about_transcript(_rng("transcripts", i), "test")
        yield _text("nano.people.transcript.accuracy", [transcript, question], answer)
