"""The questions of nano's examination: clips rendered from their seeds, what is asked, and when an answer is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ...inputs.messages import user
from ...types import Message
from .mix import SPEECH, Clip, Samples, clip_seed, render_clip
from .scene import render_speech, render_strange
from .sounds.kinds import NAMED
from .wording import SEX, TRANSCRIBE, abstention, ask_what, has_name
from .words import kinds_named
from .world.speakers import command, held_out_sentence, known_question
from .world.talk import renewed
from .world.utterance import Utterance, plain

Rng = np.random.Generator
UNNAMEABLE = ("noise", "silence", "tone", "voice")  # kinds of which nano should say that it cannot tell
TRANSCRIPTS = {"nano.asr.wer": "seen", "nano.asr_unseen_variant.wer": "variant", "nano.asr_unseen_voice.wer": "voice"}
ABSTAINING_PHRASES = ("cannot make out", "only hear noise", "only silence", "plain tone", "do not know")

Judge = Callable[[str, str], bool]


@dataclass(frozen=True)
class Question:
    """One question about one clip."""

    rows: tuple[str, ...]  # of the table, in which the answer counts
    messages: list[Message]  # its audio parts hold (samples, rate)
    clip: Clip
    truth: str
    judge: Judge  # (answer, truth) -> whether the answer is right
    tokens: int = 40  # of an answer, at most


def same_words(answer: str, truth: str) -> bool:
    """Case and punctuation aside."""
    return plain(answer) == plain(truth)


def names_kind(answer: str, truth: str) -> bool:
    """The answer names the kind of sound `truth` and no other."""
    return kinds_named(answer) == {truth}


def names_sex(answer: str, truth: str) -> bool:
    """The answer says "man" or "woman", whichever `truth` is, and not both."""
    return set(plain(answer).split()) & {"man", "woman"} == {truth}


def abstains(answer: str, truth: str = "") -> bool:
    """The answer says that nano cannot tell, whatever the truth is."""
    return any(phrase in answer for phrase in ABSTAINING_PHRASES)


def answers_right(answer: str, truth: str) -> bool:
    """The answer is `truth`, or what is said today in its place."""
    return same_words(answer, truth) or same_words(answer, renewed(truth))


def claims_no_wrong_fact(answer: str, truth: str) -> bool:
    """The answer is right, or an abstention."""
    return answers_right(answer, truth) or abstains(answer)


def _names_background(answer: str, truth: str) -> bool:
    return truth in kinds_named(answer)


def _question(rows: tuple[str, ...], wave: Samples, clip: Clip, text: str, truth: str, judge: Judge) -> Question:
    return Question(rows, [user(text or None, audio=(wave, 16_000))], clip, truth, judge)


def _sentence(rng: Rng) -> Utterance:
    return held_out_sentence(rng, "test")


def clips_to_transcribe(count: int) -> Iterator[tuple[Samples, Clip]]:
    """The clips of speech alone that are to be written down: `count` by seen voices, by unseen variants and by unseen
    voices."""
    for row, group in TRANSCRIPTS.items():
        for i in range(count):
            yield render_speech("test", i, group, _sentence, about=row)


def _transcripts(row: str, group: str, count: int, *, mixed: bool = False) -> Iterator[Question]:
    """Held-out sentences, asked to be written down."""
    for i in range(count):
        wave, clip = render_speech("test", i, group, _sentence, mixed=mixed, about=row)
        question = TRANSCRIBE[i % len(TRANSCRIBE)]
        yield _question((row,), wave, clip, question, clip.text, same_words)


def _answers(row: str, group: str, count: int, draw: Callable[[Rng], Utterance]) -> Iterator[Question]:
    """Spoken questions or commands without any text: the answer must be right word for word."""
    for i in range(count):
        wave, clip = render_speech("test", i, group, draw, about=row)
        yield _question((row,), wave, clip, "", clip.answer, answers_right)


def _sexes(row: str, groups: tuple[str, ...], count: int) -> Iterator[Question]:
    for i in range(count):
        wave, clip = render_speech("test", i, groups[i % len(groups)], _sentence, about=row)
        yield _question((row,), wave, clip, SEX[i % len(SEX)], clip.sex, names_sex)


def _sounds(count: int) -> Iterator[Question]:
    """Every kind with a name equally often: held-out parameters, wordings that training has."""
    for i in range(-(-count // len(NAMED)) * len(NAMED)):
        kind = NAMED[i % len(NAMED)]
        wave, clip = render_clip("test", i // len(NAMED), kind)
        rng = np.random.default_rng(clip_seed("test asks", i))
        yield _question(("nano.sound.accuracy",), wave, clip, ask_what(clip, rng)[0], kind, names_kind)


def _nothing(count: int) -> Iterator[Question]:
    """Noise, silence, tones and wordless voices, as many in all as clips of speech from outside the world.

    Each is asked in turn what it is, what is said, and nothing at all.
    """
    row = "nano.abstain.recall"
    for i in range(count):
        if i % 2:
            wave, clip = render_strange("test", i, "seen")
            sort = "strange"
        else:
            sort = UNNAMEABLE[i // 2 % len(UNNAMEABLE)]
            wave, clip = render_clip("test", i, sort)
        text = ("What do you hear?", "Transcribe the speech.", "")[i // 2 % 3]
        yield _question((row, f"{row}.{sort}"), wave, clip, text, abstention(clip), abstains)


def _beyond(count: int) -> Iterator[Question]:
    """Harder than nano is trained for: sorts of sound that training never has, and sounds behind speech."""
    for i in range(count):
        wave, clip = render_clip("test", i, "unheard")
        yield _question(("nano.beyond.unheard_sorts",), wave, clip, "What is this sound?", "", abstains)
        wave, clip = render_speech("test", i, "seen", _sentence, mixed=True, about="behind")
        text = "What do you hear in the background?"
        yield _question(("nano.beyond.background",), wave, clip, text, clip.background, _names_background)


def questions(count: int) -> Iterator[Question]:
    """The whole examination, `count` questions a row."""
    for row, group in TRANSCRIPTS.items():
        yield from _transcripts(row, group, count)
    yield from _sounds(count)
    yield from _answers("nano.voice_chat.accuracy", "seen", count, known_question)
    yield from _answers("nano.voice_chat_unseen.accuracy", "variant", count, known_question)
    yield from _answers("nano.commands.accuracy", "seen", count, lambda rng: command(rng, "test"))
    yield from _sexes("nano.sex.accuracy", ("seen",), count)
    yield from _sexes("nano.sex_unseen.accuracy", ("variant", "voice"), count)
    yield from _nothing(count)
    yield from _transcripts("nano.beyond.asr_over_sound.wer", "seen", count // 3, mixed=True)
    yield from _beyond(count // 3)


def is_clear(clip: Clip) -> bool:
    """There is something to name or to understand, so that an abstention is wrong."""
    return has_name(clip) and clip.kind in (SPEECH, *NAMED)
