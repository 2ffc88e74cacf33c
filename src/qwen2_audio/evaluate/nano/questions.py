"""The questions of the test: clips made again from their seeds, what is asked about them, what should be said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...inputs.messages import user
from ...types import Message
from .mix import SPEECH, Clip, clip_seed, render_clip
from .scene import render_speech, render_strange
from .sounds.kinds import NAMED
from .wording import SEX, TRANSCRIBE, WHAT, has_name, says_nothing, what
from .words import kinds_named
from .world.speakers import command, held_out, known
from .world.utterance import Utterance, plain

Rng = np.random.Generator
NOTHING = ("noise", "silence", "tone", "voice")
UNHEARD_WORDS = ("cannot make out", "only hear noise", "only silence", "plain tone", "do not know")


@dataclass(frozen=True)
class Question:
    """One thing asked about one clip."""

    rows: tuple[str, ...]  # of the table, in which the answer counts
    messages: list[Message]  # its audio parts hold (samples, rate)
    clip: Clip
    truth: str
    judge: Callable[[str, str, Clip], bool]  # what was said, the truth, the clip -> right


def same(said: str, truth: str, clip: Clip) -> bool:
    return plain(said) == plain(truth)


def right_kind(said: str, truth: str, clip: Clip) -> bool:
    return kinds_named(said) == {truth}


def right_sex(said: str, truth: str, clip: Clip) -> bool:
    return set(plain(said).split()) & {"man", "woman"} == {truth}


def abstains(said: str, truth: str = "", clip: Clip | None = None) -> bool:
    """Nano says that it cannot tell."""
    return any(words in said for words in UNHEARD_WORDS)


def no_wrong_fact(said: str, truth: str, clip: Clip) -> bool:
    """The answer is right, or none is claimed."""
    return same(said, truth, clip) or abstains(said)


def _question(rows: tuple[str, ...], wave: np.ndarray, clip: Clip, text: str, truth: str, judge: Any) -> Question:
    return Question(rows, [user(text or None, audio=(wave, 16_000))], clip, truth, judge)


def _sentence(rng: Rng) -> Utterance:
    return held_out(rng, "test")


def _transcripts(row: str, group: str, count: int, *, mixed: bool = False) -> Iterator[Question]:
    """Held-out sentences, asked to be written down."""
    for i in range(count):
        wave, clip = render_speech("test", i, group, _sentence, mixed=mixed, about=row)
        question = TRANSCRIBE[i % len(TRANSCRIBE)]
        yield _question((row,), wave, clip, question, clip.text, same)


def _answers(row: str, group: str, count: int, draw: Callable[[Rng], Utterance]) -> Iterator[Question]:
    """Spoken questions or commands, without any text: the answer must be the right one, word for word."""
    for i in range(count):
        wave, clip = render_speech("test", i, group, draw, about=row)
        yield _question((row,), wave, clip, "", clip.answer, same)


def _sexes(row: str, groups: tuple[str, ...], count: int) -> Iterator[Question]:
    for i in range(count):
        wave, clip = render_speech("test", i, groups[i % len(groups)], _sentence, about=row)
        yield _question((row,), wave, clip, SEX[i % len(SEX)], clip.sex, right_sex)


def _sounds(count: int) -> Iterator[Question]:
    """Every named kind equally often, held-out parameters, known wordings."""
    for i in range(-(-count // len(NAMED)) * len(NAMED)):
        kind = NAMED[i % len(NAMED)]
        wave, clip = render_clip("test", i // len(NAMED), kind)
        rng = np.random.default_rng(clip_seed("test asks", i))
        yield _question(("nano.sound.accuracy",), wave, clip, what(clip, rng, WHAT)[0], kind, right_kind)


def _nothing(count: int) -> Iterator[Question]:
    """Noise, silence, tones and wordless voices, as many as speech from outside the world; asked in turn what it is,
    what is said, and nothing at all."""
    row = "nano.abstain.recall"
    for i in range(count):
        if i % 2:
            wave, clip = render_strange("test", i, "seen")
            sort = "strange"
        else:
            sort = NOTHING[i // 2 % len(NOTHING)]
            wave, clip = render_clip("test", i, sort)
        text = ("What do you hear?", "Transcribe the speech.", "")[i // 2 % 3]
        yield _question((row, f"{row}.{sort}"), wave, clip, text, says_nothing(clip), abstains)


def _beyond(count: int) -> Iterator[Question]:
    """What is harder than the table asks for: unknown sorts of sound, sounds behind speech, wordings never heard."""
    for i in range(count):
        wave, clip = render_clip("test", i, "unheard")
        yield _question(("nano.beyond.unheard_sorts",), wave, clip, "What is this sound?", "", abstains)
        wave, clip = render_speech("test", i, "seen", _sentence, mixed=True, about="behind")
        text = "What do you hear in the background?"
        yield _question(("nano.beyond.background",), wave, clip, text, clip.background, _names_background)


def _names_background(said: str, truth: str, clip: Clip) -> bool:
    return truth in kinds_named(said)


def questions(count: int) -> Iterator[Question]:
    """The whole test, `count` questions a row."""
    yield from _transcripts("nano.asr.wer", "seen", count)
    yield from _transcripts("nano.asr_unseen_variant.wer", "variant", count)
    yield from _transcripts("nano.asr_unseen_voice.wer", "voice", count)
    yield from _sounds(count)
    yield from _answers("nano.voice_chat.accuracy", "seen", count, known)
    yield from _answers("nano.voice_chat_unseen.accuracy", "variant", count, known)
    yield from _answers("nano.commands.accuracy", "seen", count, lambda rng: command(rng, "test"))
    yield from _sexes("nano.sex.accuracy", ("seen",), count)
    yield from _sexes("nano.sex_unseen.accuracy", ("variant", "voice"), count)
    yield from _nothing(count)
    yield from _transcripts("nano.beyond.asr_over_sound.wer", "seen", count // 3, mixed=True)
    yield from _beyond(count // 3)


def is_clear(clip: Clip) -> bool:
    """There is something to be named or understood, so that an abstention is wrong."""
    return has_name(clip) and clip.kind in (SPEECH, *NAMED)
