"""Recordings whose words and times are known, by synthetic voices: made once and kept, as they take a while."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qwen2_audio.checkpoint.json_file import replacing
from qwen2_audio.evaluate.nano.sounds.dsp import coloured_noise
from qwen2_audio.evaluate.nano.speech.engines import check_engines
from qwen2_audio.evaluate.nano.speech.voices import draw_manner, draw_voice
from qwen2_audio.evaluate.nano.world import sentences
from qwen2_audio.evaluate.nano.world.utterance import split_of
from qwen2_audio.evaluate.random_checkpoint import cache_folder

from .spoken import RATE as RATE
from .spoken import say, say_plainly

# Nano's padding of 0.1 s was chosen on the recording of seed 7: its figures would flatter.
SEED = 2026
LEVEL = 0.05  # root mean square of each utterance
PAUSES = (0.6, 2.0)  # s
VOICES = 6
MONOLOGUES = (("flite", "slt"), ("flite", "rms"), ("espeak", "m3"))
SHORT_PAUSES = (0.05, 0.25)  # s between a monologue's sentences: a speaker who hardly stops
SENTENCES = 160
_PERIOD = 1 << 22  # samples after which the noise repeats, 262 s
_VERSION = 1  # of what is kept: raise it when a recording would come out differently
_MAKERS = (
    sentences.happening, sentences.place, sentences.people, sentences.weather, sentences.train, sentences.wish,
    sentences.name,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Recording:
    """`samples` float32 [n] at 16 kHz; the utterances' texts, where they lie in it (first sample, end), and the
    seconds at which each of their words starts, None where that is not known."""

    samples: np.ndarray
    texts: list[str]
    spans: list[tuple[int, int]]
    words: list[list[tuple[str, float | None]]]

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE

    def utterances(self) -> list[np.ndarray]:
        return [self.samples[start:end] for start, end in self.spans]

    def in_noise(self, decibels: float) -> Recording:
        """The same in pink noise, `decibels` below the speech."""
        return Recording(in_pink_noise(self.samples, decibels), self.texts, self.spans, self.words)


@dataclass(frozen=True, eq=False)
class Monologue:
    """`samples` float32 [n] at 16 kHz, and the seconds of its phones: float64 [m, 2], start and end."""

    samples: np.ndarray
    phones: np.ndarray

    def speaks(self) -> np.ndarray:
        """Whether each 10 ms lie in a phone: bool [n / 160]."""
        mask = np.zeros(len(self.samples) * 100 // RATE, bool)
        for start, end in np.rint(self.phones * 100).astype(int):
            mask[start:end] = True
        return mask


def in_pink_noise(samples: np.ndarray, decibels: float) -> np.ndarray:
    """Speech of LEVEL in pink noise `decibels` below it: float32."""
    # As loud as it is stated to be: nano's noise is flat below 20 Hz, where pink noise of minutes has half its power.
    pink = coloured_noise(np.random.default_rng(1), _PERIOD, 1.0)
    pink *= LEVEL * 10 ** (-decibels / 20)
    noisy = samples.copy()
    for start in range(0, len(noisy), _PERIOD):
        part = noisy[start : start + _PERIOD]
        part += pink[: len(part)].astype(np.float32)
    return noisy


def record(seconds: float, seed: int = SEED) -> Recording:
    """At least `seconds` of sentences that nano was not trained on. Raises EvaluationError without synthesisers."""
    check_engines()
    rng = np.random.default_rng(seed)
    voices = [(voice, draw_manner(rng, voice)) for voice in (draw_voice(rng, "variant") for _ in range(VOICES))]
    parts, texts, spans = list[np.ndarray](), list[str](), list[tuple[int, int]]()
    words = list[list[tuple[str, float | None]]]()
    position = 0
    while position < seconds * RATE:
        text = _draw(rng)
        voice, manner = voices[int(rng.integers(VOICES))]
        spoken = say(text, voice, manner)
        pause = round(RATE * rng.uniform(*PAUSES))
        start = position + pause
        parts += [np.zeros(pause, np.float32), _levelled(spoken.samples)]
        texts.append(text)
        words.append([(word, None if at is None else start / RATE + at) for word, at in spoken.words])
        position = start + len(spoken.samples)
        spans.append((start, position))
    return Recording(np.concatenate([*parts, np.zeros(RATE, np.float32)]), texts, spans, words)


def speak_on(seconds: float, engine: str, name: str, seed: int = SEED) -> Monologue:
    """At least `seconds` by one voice that pauses for 0.05 to 0.25 s between sentences: SENTENCES different ones, again
    and again in another order, as flite is slow."""
    check_engines()
    rng = np.random.default_rng(seed)
    texts = list(dict.fromkeys(_draw(rng) for _ in range(SENTENCES)))
    with ThreadPoolExecutor(2 if engine == "flite" else 1) as pool:  # espeak-ng is a library with one state
        spoken = list(pool.map(lambda text: say_plainly(text, engine, name), texts))
    parts, phones = list[np.ndarray](), list[np.ndarray]()
    position = 0
    while position < seconds * RATE:
        sentence = spoken[int(rng.integers(len(spoken)))]
        pause = round(RATE * rng.uniform(*SHORT_PAUSES))
        phones.append(position / RATE + np.array(sentence.phones))
        parts += [_levelled(sentence.samples), np.zeros(pause, np.float32)]
        position += len(sentence.samples) + pause
    return Monologue(np.concatenate(parts), np.concatenate(phones))


def kept_recording(seconds: float, progress: Callable[[str], None]) -> Recording:
    """`record`, from the cache of the benchmarks where it is there."""
    path = _kept(f"recording-{seconds:.0f}s-{SEED}")
    if not path.is_file():
        progress(f"speaking {seconds / 60:.0f} minutes, once: kept in {path}")
        made = record(seconds)
        about = {"texts": made.texts, "words": made.words}
        _keep(path, made.samples, spans=np.array(made.spans), about=np.array(json.dumps(about)))
    kept = _read(path)
    about = json.loads(str(kept["about"]))
    words = [[(word, at) for word, at in utterance] for utterance in about["words"]]
    return Recording(kept["samples"], about["texts"], [(int(a), int(b)) for a, b in kept["spans"]], words)


def kept_monologues(seconds: float, progress: Callable[[str], None]) -> list[Monologue]:
    """`speak_on` of each voice of MONOLOGUES, from the cache of the benchmarks where they are there."""
    found = []
    for engine, name in MONOLOGUES:
        path = _kept(f"monologue-{name}-{seconds:.0f}s-{SEED}")
        if not path.is_file():
            progress(f"{name} speaks {seconds / 60:.0f} minutes, once: kept in {path}")
            made = speak_on(seconds, engine, name)
            _keep(path, made.samples, phones=made.phones)
        kept = _read(path)
        found.append(Monologue(kept["samples"], kept["phones"]))
    return found


def _draw(rng: np.random.Generator) -> str:
    while True:
        text = _MAKERS[int(rng.integers(len(_MAKERS)))](rng).text
        if split_of(text) != "train":
            return text


def _levelled(samples: np.ndarray) -> np.ndarray:
    result: np.ndarray = (samples * (LEVEL / np.sqrt((samples.astype(np.float64) ** 2).mean()))).astype(np.float32)
    return result


def _kept(name: str) -> Path:
    return cache_folder() / "long" / f"{name}-v{_VERSION}.npz"


def _keep(path: Path, samples: np.ndarray, **arrays: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rounded = np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, samples=rounded, **arrays)


def _read(path: Path) -> dict[str, Any]:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    return arrays | {"samples": arrays["samples"].astype(np.float32) / 32768}
