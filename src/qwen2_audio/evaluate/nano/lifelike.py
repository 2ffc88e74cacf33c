"""Harder than the examination's older rows, still from seeds: sounds outdoors, several sentences, human-like voices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ...inputs.messages import user
from .field import render_field
from .mix import SPEECH, Clip, Samples, add_noise, add_room, clip_seed, rms_db, set_level
from .questions import Question, Rng, names_kind, same_words
from .sounds import dsp
from .sounds.kinds import NAMED
from .speech import kokoro
from .speech.engines import say
from .speech.voices import draw_manner, draw_voice
from .wording import TRANSCRIBE, ask_what
from .world.speakers import held_out_sentence

LONGEST = 29.0  # seconds of a window
JOINED_TOKENS = 120  # of an answer


def field_questions(count: int) -> Iterator[Question]:
    """Every named kind equally often, as recordings have it: other parameters than training's."""
    for i in range(-(-count // len(NAMED)) * len(NAMED)):
        wave, clip = render_field("test", i // len(NAMED), NAMED[i % len(NAMED)])
        text, _ = ask_what(clip, np.random.default_rng(clip_seed("field asks", i)))
        yield _asked("nano.sound_field.accuracy", wave, clip, text, clip.kind)


def joined_questions(count: int) -> Iterator[Question]:
    """Two, three and four held-out sentences in a window, by one voice or several, with pauses between them."""
    for i in range(count):
        wave, clip = render_joined(i, 2 + i % 3)
        asked = _asked("nano.joined.wer", wave, clip, TRANSCRIBE[i % len(TRANSCRIBE)], clip.text)
        yield replace(asked, tokens=JOINED_TOKENS)


def render_joined(index: int, sentences: int) -> tuple[Samples, Clip]:
    """Clip `index` of `sentences` sentences by seen voices: float32 [n] at 16 kHz, and what it is.

    Pauses of 0.3 to 1.2 s; one room, one noise, one level for all. What would pass `LONGEST` is drawn again.
    """
    rng = np.random.default_rng(clip_seed(f"test joined {sentences}", index))
    while True:
        texts, pieces, voice = list[str](), list[dsp.Array](), draw_voice(rng, "seen")
        several = rng.random() < 0.5
        for _ in range(sentences):
            spoken = held_out_sentence(rng, "test")
            voice = draw_voice(rng, "seen") if several else voice
            pieces += [dsp.unit(say(spoken.text, voice, draw_manner(rng, voice))), np.zeros(_pause(rng))]
            texts.append(spoken.text)
        dry = np.concatenate(pieces[:-1])
        if len(dry) <= LONGEST * dsp.RATE:
            break
    return _finished(dry, Clip(SPEECH, 0, 0, " ".join(texts), f"{sentences} sentences", sex=voice.sex), rng)


def neural_questions(count: int) -> Iterator[Question]:
    """Held-out sentences by the human-like voices that no training has. Needs `kokoro.available()` to be None."""
    for i in range(count):
        rng = np.random.default_rng(clip_seed("test neural voice", i))
        spoken, name = held_out_sentence(rng, "test"), kokoro.HELD_OUT_VOICES[i % len(kokoro.HELD_OUT_VOICES)]
        dry = dsp.unit(kokoro.say(spoken.text, name, float(rng.uniform(0.85, 1.2))).astype(np.float64))
        sex = "woman" if name[1] == "f" else "man"
        wave, clip = _finished(
            dry, Clip(SPEECH, 0, 0, spoken.text, spoken.family, sex=sex, voice=f"kokoro {name}"), rng
        )
        yield _asked("nano.neural_voice.wer", wave, clip, TRANSCRIBE[i % len(TRANSCRIBE)], clip.text)


def _pause(rng: Rng) -> int:
    return dsp.samples(float(rng.uniform(0.3, 1.2)))


def _finished(x: dsp.Array, clip: Clip, rng: Rng) -> tuple[Samples, Clip]:
    x = add_room(x, rng, chance=0.35, wettest=0.4, longest=0.5)
    wave = set_level(add_noise(x, rng), rng).astype(np.float32)
    return wave, replace(clip, seconds=len(wave) / dsp.RATE, level_db=rms_db(wave))


def _asked(row: str, wave: Samples, clip: Clip, text: str, truth: str) -> Question:
    judge = same_words if row.endswith(".wer") else names_kind
    return Question((row,), [user(text, audio=(wave, dsp.RATE))], clip, truth, judge)
