"""Row `long.word_start_ms`: where words begin, of sentences and voices that nano's aligner was not trained on.

With the package `pocketsphinx` and the shared real clips, also `long.word_start_real`: how many words of these begin
within 100 ms of where it puts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qwen2_audio.audio.io import load
from qwen2_audio.bench.report import Row
from qwen2_audio.evaluate.nano.speech.voices import UNSEEN_VARIANTS, UNSEEN_VOICES, Voice, draw_manner
from qwen2_audio.evaluate.nano.world import sentences
from qwen2_audio.evaluate.nano.world.utterance import plain, split_of
from qwen2_audio.longform.word_times import WordTimer

from ..harness.rows import row_of
from . import flite_words, spoken
from .spoken import RATE, Spoken

if TYPE_CHECKING:
    from .session import Session

SEED = 2027
NAME = "long.word_start_ms"
NEAR = 0.1  # s
_LEADS = (0.0, 0.6)  # s of silence before a sentence
_NOISE = (30.0, 50.0)  # dB below the speech
_MAKERS = (sentences.happening, sentences.place, sentences.people, sentences.weather, sentences.train, sentences.wish)
REAL = {  # the documented examples' clips, with what is said in them
    "1272-128104-0000.flac": (
        "mister quilter is the apostle of the middle classes and we are glad to welcome his gospel"
    ),
}
CLIPS = Path(__file__).parents[3] / "shared" / "data" / "audio"


def rows(session: Session) -> list[Row]:
    """Measure. The mean is the value; the note has the share within 100 ms, by kind of voice too."""
    aligner = session.chat.service().aligner
    session.progress("saying sentences whose words' times are known")
    errors = start_errors(aligner, 60 if session.quick else 300)
    every = np.concatenate(list(errors.values()))
    parts = [f"{100 * float((every < NEAR).mean()):.1f} % within 100 ms, of {len(every):,} words"]
    parts += [f"{kind} {1000 * float(found.mean()):.0f} ms" for kind, found in errors.items()]
    measured = [row_of(NAME, "ms", [1000 * float(every.mean())], note="; ".join(parts))]
    near = real_clips(aligner)
    if near is not None:
        note = f"of {len(near)} words of real clips, from pocketsphinx's own alignment"
        measured.append(row_of("long.word_start_real", "% right", [100 * float((near < NEAR).mean())], note=note))
    return measured


def start_errors(aligner: WordTimer, count: int, seed: int = SEED) -> dict[str, np.ndarray]:
    """Seconds between the words' starts and the truth, by kind of voice; one second for a word that is not found."""
    rng = np.random.default_rng(seed)
    voices = (*UNSEEN_VARIANTS, *UNSEEN_VOICES)
    errors: dict[str, list[float]] = {}
    for number in range(count):
        voice = voices[number % len(voices)]
        kind = f"{voice.engine} {'variants' if voice in UNSEEN_VARIANTS else 'voices'}"
        errors.setdefault(kind, []).extend(_errors(aligner, sentence(rng, voice), rng))
    return {kind: np.array(found) for kind, found in errors.items()}


def sentence(rng: np.random.Generator, voice: Voice, split: str = "test") -> Spoken:
    """A sentence of nano's world that is of this split."""
    text = ""
    while not text or split_of(text) != split:
        text = _MAKERS[int(rng.integers(len(_MAKERS)))](rng).text
    manner = draw_manner(rng, voice)
    say = flite_words.say if voice.engine == "flite" else spoken.say
    return say(text, voice, manner)


def _errors(aligner: WordTimer, said: Spoken, rng: np.random.Generator) -> list[float]:
    lead = float(rng.uniform(*_LEADS))
    samples = np.concatenate([np.zeros(round(lead * RATE), np.float32), said.samples])
    level = float(np.sqrt((said.samples**2).mean())) * 10 ** (-float(rng.uniform(*_NOISE)) / 20)
    samples = (samples + level * rng.standard_normal(len(samples))).astype(np.float32)
    placed = aligner.words(samples, [word for word, _ in said.words])
    known = zip(placed, said.words, strict=True)
    return [1.0 if found is None else abs(found.start - lead - at) for found, (_, at) in known if at is not None]


def real_clips(aligner: WordTimer) -> np.ndarray | None:
    """Seconds between nano's and pocketsphinx's starts of words of real clips; None without package or clips."""
    try:
        import pocketsphinx
    except ImportError:
        return None
    distances: list[float] = []
    for name, text in REAL.items():
        if (CLIPS / name).is_file():
            samples, words = load(CLIPS / name), plain(text).split()
            theirs = _pocketsphinx(pocketsphinx, samples, text)
            placed = aligner.words(samples, words)
            pairs = zip(placed, _starts(words, theirs), strict=True)
            distances += [1.0 if found is None else abs(found.start - at) for found, at in pairs if at is not None]
    return np.array(distances) if distances else None


def _pocketsphinx(package: Any, samples: np.ndarray, text: str) -> list[tuple[str, float]]:
    """Words with their starts, by forced alignment."""
    decoder = package.Decoder(loglevel="FATAL", samprate=RATE)
    decoder.set_align_text(text)
    decoder.start_utt()
    decoder.process_raw((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes(), full_utt=True)
    decoder.end_utt()
    frames = [(item.word.split("(")[0], item.start_frame) for item in decoder.seg()]
    return [(word, start / 100) for word, start in frames if word.isalpha()]


def _starts(words: Sequence[str], found: Sequence[tuple[str, float]]) -> list[float | None]:
    """The start of each word, where all of them were found; else none."""
    same = [word for word, _ in found] == list(words)
    return [start for _, start in found] if same else [None] * len(words)
