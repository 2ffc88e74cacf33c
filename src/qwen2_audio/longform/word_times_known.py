"""Times of a text that is known, in a sound of any length.

    sound -> windows -> the aligner's evidence of each, laid end to end -> the best path through the whole text

The evidence of an hour takes about 10 MB; samples are read as far as a window needs them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..audio.io import SoundStream
from ..audio.mel import SAMPLE_RATE
from ..errors import ConfigError
from .settings import TranscriptionSettings
from .text_language import language_of_text
from .transcribe import Listening
from .transcript import Segment, Transcript, Word, split_words
from .vad import missing_reason, speech_detector
from .windows import Windower
from .word_times import Aligner, Evidence, WordSpan
from .word_times_letters import spell
from .word_times_pauses import sentences_of


def align(
    aligner: Aligner,
    source: Any,
    name: str,
    text: str,
    settings: TranscriptionSettings,
    listening: Listening | None = None,
    progress: Callable[[float, float | None], None] = lambda position, seconds: None,
) -> Transcript:
    """The words of `text` with times, as a Transcript: a segment for each line, and for each sentence of a line.

    Args:
        source: what `audio.io.load` takes; `name` is what messages call it.
        progress: called with the seconds that are done, and the sound's length by its header or None.

    A word that the sound does not hold has no times, and a note counts them; so does one without letters.

    Raises:
        AudioError: a sound that cannot be read.
        ConfigError: no aligner, a text without words, or one that is longer than the sound can be.
    """
    listening = listening or Listening()
    lines = [split_words(line) for line in text.splitlines() if line.strip()]
    words = [word for line in lines for word in line]
    aligner.ensure_available()
    letters = sum(len(spell(word, aligner.symbols)) for word in words)
    if not letters:
        raise ConfigError("The text has no words; expected what is said in the sound.")
    stream = SoundStream(source, limits=listening.limits, name=name, fill_gaps=True)
    windower = Windower(settings, speech_detector(), everything=listening.everything)
    parts = list[Evidence]()
    for block in stream.blocks():
        for window in windower.push(block[0]):
            parts.append(aligner.evidence(window.samples, window.start / SAMPLE_RATE))
            progress(window.end / SAMPLE_RATE, stream.seconds)
    parts += [aligner.evidence(window.samples, window.start / SAMPLE_RATE) for window in windower.finish()]
    seconds = windower.total / SAMPLE_RATE
    progress(seconds, stream.seconds)
    frames = sum(len(part.starts) for part in parts)
    if frames < letters:
        raise ConfigError(
            f"{name} has {frames / 50:.1f} s of speech, too little for {letters} letters: the text is not what is said "
            "in it, or its speech was not found; everything=True (--no-vad) hears all of it."
        )
    notes = [*stream.notes, *filter(None, [missing_reason()])]
    placed = aligner.align(parts, words)
    spoken = [found for word, found in zip(words, placed, strict=True) if spell(word, aligner.symbols)]
    if (lost := spoken.count(None)) > 0:
        notes.append(f"{lost} of {len(spoken)} words were not found in the sound, and have no times.")
    skipped = tuple((start / SAMPLE_RATE, end / SAMPLE_RATE) for start, end in windower.skipped)
    segments = _segments(lines, placed)
    return Transcript(tuple(segments), seconds, language_of_text(text), skipped, tuple(notes), "transcribe", name)


def _segments(lines: list[list[str]], placed: list[WordSpan | None]) -> list[Segment]:
    language = language_of_text(" ".join("".join(line) for line in lines))
    segments: list[Segment] = []
    position, before = 0, 0.0
    for line in lines:
        for first, end in sentences_of(line):
            found = placed[position + first : position + end]
            words = tuple(_word(text, place) for text, place in zip(line[first:end], found, strict=True))
            known = [place for place in found if place is not None]
            start = known[0].start if known else before
            stop = known[-1].end if known else before
            scores = [place.score for place in known]
            segments.append(
                Segment(
                    start,
                    stop,
                    "".join(line[first:end]).strip(),
                    language,
                    float(np.mean(scores)) if scores else None,
                    words=words,
                    timing="aligned" if known else "estimated",
                )
            )
            before = stop
        position += len(line)
    return segments


def _word(text: str, place: WordSpan | None) -> Word:
    return Word(text, None, None) if place is None else Word(text, place.start, place.end, place.score)
