"""Clips of people and sounds as nano will meet them: Kokoro's lines recorded by devices, several utterances in a
window, words alone by the other engines, words that it must decline, and sounds as they are found outside.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from qwen2_audio.evaluate.nano.field import render_field
from qwen2_audio.evaluate.nano.mix import SPEECH, STRANGE, Clip, Samples, clip_seed, rms_db
from qwen2_audio.evaluate.nano.recorded import recorded
from qwen2_audio.evaluate.nano.sounds import dsp
from qwen2_audio.evaluate.nano.sounds.dsp import Array, Rng
from qwen2_audio.evaluate.nano.sounds.field_kinds import SORTS
from qwen2_audio.evaluate.nano.sounds.kinds import NAMES
from qwen2_audio.evaluate.nano.speech.engines import say
from qwen2_audio.evaluate.nano.speech.voices import Manner, Voice, draw_manner, draw_voice
from qwen2_audio.evaluate.nano.world import people
from qwen2_audio.evaluate.nano.world.utterance import Utterance

from .errors import RecipeError
from .kokoro import dry
from .said import Line, lines

# The sorts of clips, in turn by index: a line of Kokoro's, several joined, a word or list by another engine, several of
# those joined, a line to decline, the same by another engine, a field-like sound.
TURNS = "kkjkekfxkkekjkfkexkkejfkkaxkekfjkkexkkfJkekxkfkekjkkfeaJxf"
PAUSES = 0.2, 1.3  # s between utterances of a window
LONGEST = 14.0  # s of a window with several


@dataclass(frozen=True)
class Maker:
    """Makes clip i of a split from the lines in Kokoro's folder; `limit`: of the list's first lines only."""

    split: str
    folder: Path
    limit: int | None = None

    def __call__(self, i: int) -> tuple[Samples, Clip]:
        """float32 [n] at 16 kHz, and what it is; the same on every call."""
        rng = np.random.default_rng(clip_seed(f"{self.split} people", i))
        letter = TURNS[i % len(TURNS)]
        number = i // len(TURNS) * TURNS.count(letter) + TURNS[: i % len(TURNS)].count(letter)
        if letter == "f":
            return render_field(self.split, number, _FIELD[number % len(_FIELD)])
        spoken, clip = {
            "k": self._line, "x": self._alien, "j": self._joined, "e": self._alone, "a": self._alien_alone,
            "J": self._joined_alone,
        }[letter](number, rng)  # fmt: skip
        known = self._lines(aliens=False)
        behind = [dry(known[int(rng.integers(len(known)))], self.folder) for _ in range(2)]
        samples = recorded(spoken, rng, behind)
        return samples, replace(clip, seconds=len(samples) / dsp.RATE, level_db=rms_db(samples))

    def _lines(self, *, aliens: bool) -> tuple[Line, ...]:
        return _lines_of(self.split, self.limit, aliens)

    def _line(self, number: int, rng: Rng) -> tuple[Array, Clip]:
        known = self._lines(aliens=False)
        line = known[number % len(known)]
        return dry(line, self.folder), _clip(line.said, line.sex, _name(line))

    def _alien(self, number: int, rng: Rng) -> tuple[Array, Clip]:
        strange = self._lines(aliens=True)
        line = strange[number % len(strange)]
        return dry(line, self.folder), Clip(STRANGE, 0, 0, voice=_name(line))

    def _joined(self, number: int, rng: Rng) -> tuple[Array, Clip]:
        """Two to four lines of one sex, mostly of as many speakers."""
        sex = ("man", "woman")[number % 2]
        known = [line for line in self._lines(aliens=False) if line.sex == sex]
        drawn = [known[int(rng.integers(len(known)))] for _ in range(int(rng.integers(2, 5)))]
        spoken = [dry(line, self.folder) for line in drawn]
        return _in_a_row(spoken, [line.said for line in drawn], sex, "kokoro several", rng)

    def _alone(self, number: int, rng: Rng) -> tuple[Array, Clip]:
        """Every word in each of its forms in turn, every fourth a list, every eighth anything."""
        words = _words()
        said = words[(number - number // 4) % len(words)]
        if number % 4 == 3:
            said = people.spoken(self.split, rng, "list" if number % 8 == 3 else None)
        voice, manner = _speaker(rng)
        return say(people.aloud(said.text, rng), voice, manner), _clip(said, voice.sex, f"{voice.engine} {voice.name}")

    def _alien_alone(self, number: int, rng: Rng) -> tuple[Array, Clip]:
        voice, manner = _speaker(rng)
        return say(people.alien(rng, self.split), voice, manner), Clip(STRANGE, 0, 0, voice=voice.engine)

    def _joined_alone(self, number: int, rng: Rng) -> tuple[Array, Clip]:
        """Two to four utterances of one speaker, half of them sentences of the first lessons."""
        voice, manner = _speaker(rng)
        kinds = ["old" if rng.random() < 0.4 else None for _ in range(int(rng.integers(2, 5)))]
        said = [people.spoken(self.split, rng, kind) for kind in kinds]
        spoken = [say(people.aloud(one.text), voice, manner) for one in said]
        return _in_a_row(spoken, said, voice.sex, f"{voice.engine} {voice.name}", rng)


def _in_a_row(spoken: list[Array], said: list[Utterance], sex: str, voice: str, rng: Rng) -> tuple[Array, Clip]:
    """The utterances with pauses between, equally loud within 6 dB; as many as fit into a window."""
    parts, seconds, count = list[Array](), 0.0, 0
    for one in spoken:
        if count and seconds + len(one) / dsp.RATE + PAUSES[1] > LONGEST:
            break
        pause = np.zeros(dsp.samples(rng.uniform(*PAUSES)) if count else 0)
        parts += [pause, dsp.unit(one) * 10 ** (rng.uniform(-3, 3) / 20)]
        seconds, count = seconds + (len(pause) + len(one)) / dsp.RATE, count + 1
    return np.concatenate(parts), _clip(people.joined(said[:count]), sex, voice)


def _clip(said: Utterance, sex: str, voice: str) -> Clip:
    return Clip(SPEECH, 0, 0, said.text, said.family, said.answer, sex, voice)


def _name(line: Line) -> str:
    return "kokoro " + "+".join(name for name, _ in line.voice)


def _speaker(rng: Rng) -> tuple[Voice, Manner]:
    voice = draw_voice(rng, "trained")
    return voice, draw_manner(rng, voice, far=True)


# Every kind, those whose recordings nano names worst twice more.
_FIELD = (*NAMES, *SORTS, *SORTS)


@cache
def _words() -> tuple[Utterance, ...]:
    """Every word in each of its forms, well mixed."""
    every = list(people.words_alone())
    return tuple(every[i] for i in np.random.default_rng(8).permutation(len(every)))


@cache
def _lines_of(split: str, limit: int | None, aliens: bool) -> tuple[Line, ...]:
    """Lines of a split. Development has few words of its own: it repeats training's, in other recordings."""
    chosen = [line for line in lines()[:limit] if (line.sort == "alien") == aliens]
    own = [line for line in chosen if line.split == split]
    if split == "dev" and not aliens:
        own += [line for line in chosen if line.sort == "word"][: 2 * len(own)]
    if not (found := own or chosen):
        raise RecipeError(
            f"Of the first {limit} lines none is {'to decline' if aliens else 'known'}; say more of them."
        )
    return tuple(found)
