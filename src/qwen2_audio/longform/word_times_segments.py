"""The times of a window's segments: those of words where asked for, sentences by them or by pauses, speakers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ..audio.mel import SAMPLE_RATE
from .speakers import Turn, label_speakers
from .transcript import Segment, Word, split_words
from .windows import Window
from .word_times import WordTimer
from .word_times_pauses import by_pauses, by_words


@dataclass(frozen=True, eq=False)
class SegmentTimes:
    """How segments get their times."""

    words: WordTimer | None = None  # None: no times of words; sentences are found by pauses
    turns: Sequence[Sequence[Turn]] | None = None  # who speaks, of each source

    def applied(self, window: Window, segments: Sequence[Segment], source: int = 0) -> list[Segment]:
        """The segments of a window, in order, as its sentences."""
        edges = [window.start / SAMPLE_RATE, window.end / SAMPLE_RATE]
        edges[1:1] = [(one.end + two.start) / 2 for one, two in pairwise(segments)]
        found: list[Segment] = []
        for segment, start, end in zip(segments, edges[:-1], edges[1:], strict=True):
            found += self._timed(window, segment, start, end)
        return found if self.turns is None else label_speakers(found, self.turns[source])

    def _timed(self, window: Window, segment: Segment, start: float, end: float) -> list[Segment]:
        """A segment whose words lie between `start` and `end`."""
        if not segment.text:
            return [segment]
        if self.words is None:
            first, last = (round(time * SAMPLE_RATE) - window.start for time in (segment.start, segment.end))
            return by_pauses(segment, window.samples[max(first, 0) : last])
        first, last = (round(time * SAMPLE_RATE) - window.start for time in (start, end))
        words = segment.words or tuple(Word(text, None, None) for text in split_words(segment.text))
        placed = self.words.words(window.samples[first:last], [word.text for word in words], start)
        timed = tuple(
            word if found is None else replace(word, start=found.start, end=found.end)
            for word, found in zip(words, placed, strict=True)
        )
        if not any(found is not None for found in placed):
            return [replace(segment, words=timed)]
        return by_words(replace(segment, words=timed))
