"""Rows on what is recognised: word errors beside those of the utterances alone, and where segments and words lie."""

from __future__ import annotations

import numpy as np

from qwen2_audio.bench.report import Row
from qwen2_audio.evaluate.nano.world.utterance import plain
from qwen2_audio.evaluate.word_errors import align, word_error_rate
from qwen2_audio.inputs.messages import user
from qwen2_audio.longform.transcript import Word
from qwen2_audio.longform.wording import TRANSCRIBE
from qwen2_audio.types import SamplingParams

from ..harness.bars import bar
from ..harness.rows import row_of
from .recording import RATE, Recording
from .session import Session, in_noise

IN_PLACE = 0.5  # s from the truth
_PARAMS = SamplingParams(temperature=0.0, repetition_penalty=1.0, max_tokens=80)


def wer_excess(session: Session, name: str, decibels: float | None = None) -> Row:
    """Word errors of the whole recording, as one text, less those of its utterances alone."""
    recording, talk = session.recording(decibels), session.transcript(decibels)
    session.progress(f"hearing {len(recording.texts)} utterances alone{in_noise(decibels)}")
    asked = [[user(TRANSCRIBE, audio=clip)] for clip in recording.utterances()]
    answers = [completion.text for completion in session.chat.batch(asked, _PARAMS)]
    references = [plain(text) for text in recording.texts]
    alone = 100 * word_error_rate(list(zip(references, map(plain, answers), strict=True)))
    heard = " ".join(plain(segment.text) for segment in talk.segments)
    whole = 100 * word_error_rate([(" ".join(references), heard)])
    note = f"{whole:.2f} % whole, {alone:.2f} % alone; {len(recording.texts)} utterances"
    return row_of(name, "points", [whole - alone], note=note)


def segment_starts(session: Session, name: str) -> Row:
    """From each utterance's start to the nearest segment's, median."""
    recording, talk = session.recording(), session.transcript()
    starts = np.array([segment.start for segment in talk.segments])
    errors = [float(np.abs(starts - start / RATE).min()) for start, _ in recording.spans]
    note = f"{len(talk.segments)} segments of {len(recording.texts)} utterances"
    return row_of(name, "ms", [1000 * float(np.median(errors))], note=note)


def words_in_place(session: Session, name: str) -> Row:
    """The share of rightly transcribed words that start within 0.5 s of the truth."""
    distances = start_errors(session.recording(), session.transcript().words)
    if not len(distances):
        return Row(name, None, "% right", limit=bar(name), note="no word has a time")
    near = 100 * float((np.abs(distances) <= IN_PLACE).mean())
    note = f"of {len(distances):,} words; mean distance {1000 * float(np.abs(distances).mean()):.0f} ms"
    return row_of(name, "% right", [near], note=note)


def start_errors(recording: Recording, words: tuple[Word, ...]) -> np.ndarray:
    """Seconds from the truth to the start of each word that is right and whose both times are known."""
    truth = [word for utterance in recording.words for word in utterance]
    said = [(part, word.start) for word in words for part in plain(word.text).split()]
    pairs = [
        (expected, found)
        for (tag, _, _), expected, found in _aligned([word for word, _ in truth], [word for word, _ in said])
        if tag == "equal"
    ]
    starts = [(truth[expected][1], said[found][1]) for expected, found in pairs]
    return np.array([found - expected for expected, found in starts if expected is not None and found is not None])


def _aligned(reference: list[str], answer: list[str]) -> list[tuple[tuple[str, str, str], int, int]]:
    """Each operation of `align` with the numbers of the words that it is about."""
    expected = found = 0
    numbered = []
    for operation in align(reference, answer):
        numbered.append((operation, expected, found))
        expected += operation[0] != "insert"
        found += operation[0] != "delete"
    return numbered
