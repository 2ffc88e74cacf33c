"""Clips in which people speak, and the mix of all clips that training hears."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .mix import SPEECH, STRANGE, Clip, Samples, add_noise, add_room, clip_seed, render_clip, rms_db, set_level
from .sounds import dsp
from .sounds.dsp import Array, Rng
from .sounds.kinds import NAMED, NAMES
from .speech.engines import say
from .speech.strange import strange_speech
from .speech.voices import draw_manner, draw_voice
from .world.speakers import utterance
from .world.utterance import Utterance

Draw = Callable[[Rng], Utterance]
# The sorts of clips in training, in turn by index.
SORTS = {"w": "speech", "s": "sound", "x": "strange", "m": "mixed"}  # mixed: speech over a sound
TURNS = tuple(SORTS[letter] for letter in "wwswwswxwwmwswwwswxwwswwmwwswxwwswwwmswxwwswwwmswx")


def render(split: str, index: int) -> tuple[Samples, Clip]:
    """Clip `index` of `split`, of any sort: float32 [n] at 16 kHz, and what it is."""
    sort = TURNS[index % len(TURNS)]
    if sort == "sound":
        number = index // len(TURNS) * TURNS.count("sound") + TURNS[: index % len(TURNS)].count("sound")
        wave, clip = render_clip(split, number)
        while clip.seconds > 6 and number % 4:  # three of four long ones are drawn again: they teach no more
            number += len(NAMES) * 10_000
            wave, clip = render_clip(split, number)
        return wave, clip
    if sort == "strange":
        return render_strange(split, index, "trained")
    return render_speech(split, index, "trained", lambda rng: utterance(rng, split), mixed=sort == "mixed")


def render_speech(
    split: str, index: int, group: str, draw: Draw, *, mixed: bool = False, about: str = ""
) -> tuple[Samples, Clip]:
    """A voice of `group` says what `draw` gives; `mixed`: over a sound of `split`.

    `about` is part of the seed, so that two rows of the table with the same `index` differ.
    """
    rng = np.random.default_rng(clip_seed(f"{split} speech {group} {about}", index))
    spoken, voice = draw(rng), draw_voice(rng, group)
    dry = dsp.unit(say(spoken.text, voice, draw_manner(rng, voice, far=group == "trained")))
    clip = Clip(SPEECH, 0, 0, spoken.text, spoken.family, spoken.answer, voice.sex, f"{voice.engine} {voice.name}")
    if mixed:
        kind = NAMED[int(rng.integers(len(NAMED)))]
        behind, _ = render_clip(split, index, kind)
        dry = _mix_over(dry, dsp.unit(behind.astype(np.float64)), rng.uniform(4, 14))
        clip = replace(clip, background=kind)
    return _finish(dry, clip, rng)


def render_strange(split: str, index: int, group: str) -> tuple[Samples, Clip]:
    """Speech from outside nano's world."""
    rng = np.random.default_rng(clip_seed(f"{split} strange {group}", index))
    return _finish(dsp.unit(strange_speech(rng, split, group)), Clip(STRANGE, 0, 0), rng)


def _mix_over(speech: Array, sound: Array, ratio_db: float) -> Array:
    """Speech in the middle of a sound that is `ratio_db` below it.

    A longer sound is cut to two seconds more than the speech, but not below three.
    """
    sound = sound[: max(len(speech) + 2 * dsp.RATE, 3 * dsp.RATE)]
    out = np.zeros(max(len(speech), len(sound)))
    out[: len(sound)] += sound * 10 ** (-ratio_db / 20)
    start = (len(out) - len(speech)) // 2
    out[start : start + len(speech)] += speech
    return out


def _finish(x: Array, clip: Clip, rng: Rng) -> tuple[Samples, Clip]:
    """Add silence, room and noise, set the level. Speech gets less room than sounds, so that its words stay clear."""
    before, after = rng.uniform(0, 0.5, 2) * (rng.random(2) < 0.3)
    x = np.concatenate([np.zeros(int(before * dsp.RATE)), x, np.zeros(int(after * dsp.RATE))])
    x = add_room(x, rng, chance=0.35, wettest=0.4, longest=0.5)
    samples = set_level(add_noise(x, rng), rng).astype(np.float32)
    return samples, replace(clip, seconds=len(samples) / dsp.RATE, level_db=rms_db(samples))
