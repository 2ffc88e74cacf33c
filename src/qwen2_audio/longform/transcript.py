"""Transcript: what was said in a sound, with times, and what was not heard."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .formats import CueShape

Timing = Literal["window", "estimated", "aligned"]
# Scripts that put no blanks between words: Thai, Lao, Khmer, kana, CJK ideographs and their punctuation.
UNSPACED = "\u0e00-\u0eff\u1780-\u17ff\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uff60"
_ENDS_UNSPACED, _BEGINS_UNSPACED = re.compile(f"[{UNSPACED}]$"), re.compile(f"^[{UNSPACED}]")
_WORD = re.compile(rf"\s*[{UNSPACED}]|\s*[^\s{UNSPACED}]+")


@dataclass(frozen=True, slots=True)  # ten hours have 100,000 of them
class Word:
    """A word with its blank in front, if it has one. `start` and `end` are seconds; None where they are not known."""

    text: str
    start: float | None
    end: float | None
    confidence: float | None = None  # probability
    speaker: str | None = None
    tokens: tuple[int, ...] = field(default=(), repr=False)  # ids of those that begin in it


@dataclass(frozen=True, slots=True)
class Segment:
    """What was said in a part of a sound. Times are seconds from its beginning."""

    start: float
    end: float
    text: str
    language: str | None = None  # ISO 639 code; None: not known
    confidence: float | None = None  # mean probability of its tokens, geometric
    flags: tuple[str, ...] = ()  # why the text may be wrong: names of `longform.guards`
    raw: str | None = None  # the model's own words, where `text` is not all of them, or its first ones, if asked again
    words: tuple[Word, ...] = ()
    timing: Timing = "window"  # where `start` and `end` come from: the window's, pauses, or an aligner
    channel: int | None = None  # of a sound whose channels are heard one by one, from 0
    speaker: str | None = None
    tokens: tuple[int, ...] = field(default=(), repr=False)  # ids
    temperature: float = 0.0
    avg_logprob: float | None = None
    no_speech_prob: float | None = None  # 1 - the highest probability of speech in it

    @property
    def compression_ratio(self) -> float:
        """Bytes of the text by bytes of its zlib form; high where it repeats itself."""
        data = self.text.encode()
        return len(data) / len(zlib.compress(data))


@dataclass(frozen=True)
class Transcript:
    """What was said in a sound.

    `skipped` are the spans in seconds that no segment's window held, because nobody speaks there; `notes` are
    sentences on what of the source was lost, left out or chosen.
    """

    segments: tuple[Segment, ...]
    seconds: float  # of the sound
    language: str | None = None  # that most segments are in, by seconds; ISO 639 code
    skipped: tuple[tuple[float, float], ...] = ()
    notes: tuple[str, ...] = ()
    task: Literal["transcribe", "translate"] = "transcribe"
    name: str = ""  # of the source

    @property
    def text(self) -> str:
        """The segments' texts, with blanks between them where their scripts have blanks."""
        return join_texts(segment.text for segment in self.segments)

    @property
    def words(self) -> tuple[Word, ...]:
        return tuple(word for segment in self.segments for word in segment.words)

    def save(self, path: str | Path, format: str | None = None, shape: CueShape | None = None) -> Path:
        """Write a file, whole or not at all: its format by `format` or the path's ending (.srt, .vtt, .tsv, .txt,
        .lrc, .json, .TextGrid, .ctm). Raises ConfigError for any other, and for a format whose times are not known."""
        from ..checkpoint.json_file import replacing
        from .formats import format_of, write

        path = Path(path)
        text = write(self, format or format_of(path), shape)
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
        return path

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object: Whisper's keys, and more."""
        from .formats import json_object

        return json_object(self)


def join_texts(texts: Iterable[str]) -> str:
    """Texts one after the other; no blank between two scripts without blanks."""
    joined = ""
    for text in texts:
        text = text.strip()
        glued = _ENDS_UNSPACED.search(joined) and _BEGINS_UNSPACED.search(text)
        joined += text if glued or not joined or not text else f" {text}"
    return joined


def split_words(text: str) -> list[str]:
    """Its words, each with the blank in front of it; a character is a word where scripts have no blanks."""
    return _WORD.findall(text)


def main_language(segments: Iterable[Segment]) -> str | None:
    """The language that most seconds are in; None where none is known."""
    seconds = Counter[str]()
    for segment in segments:
        if segment.language is not None and segment.text:
            seconds[segment.language] += round(1000 * (segment.end - segment.start))
    return max(seconds, key=lambda language: seconds[language]) if seconds else None
