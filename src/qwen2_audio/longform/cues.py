"""Cues: what a player shows at a time. A segment is one, or is cut into several that a viewer can read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields

from ..errors import ConfigError
from .transcript import Segment, Transcript, split_words

_SENTENCE_END = re.compile(r"[.!?…。！？]['\"’”)]*$")
_PAUSE = re.compile(r"[,;:、，；：–—-]['\"’”)]*$")


@dataclass(frozen=True)
class CueShape:
    """How long a cue may be. None: no limit. Raises ConfigError for a limit that is not above 0."""

    max_line_width: int | None = None  # characters of a line; subtitles have 42
    max_line_count: int | None = None  # lines of a cue; needs max_line_width
    max_seconds: float | None = None  # of a cue; subtitles have 7
    max_characters_per_second: float | None = None  # a cue stays longer, where the next one leaves time; 17 to 20

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None and not value > 0:
                raise ConfigError(f"{item.name} is {value}; expected a number above 0.")
        if self.max_line_count is not None and self.max_line_width is None:
            raise ConfigError("max_line_count needs max_line_width: without it a cue is one line.")


@dataclass(frozen=True)
class Cue:
    """Times in milliseconds."""

    start: int
    end: int
    lines: tuple[str, ...]  # none of them is empty
    speaker: str | None = None
    estimated: bool = False  # a time was derived from pauses, or from the lengths of words


@dataclass(frozen=True)
class _Timed:
    """A word with times, in seconds."""

    text: str
    start: float
    end: float


def cues_of(transcript: Transcript, shape: CueShape | None) -> list[Cue]:
    """The cues of all segments with text, in order; none starts before another ends."""
    cues: list[Cue] = []
    for segment in sorted(transcript.segments, key=lambda segment: segment.start):
        lines = tuple(" ".join(line.split()) for line in segment.text.splitlines() if line.strip())
        if not lines:
            continue
        speaker = segment.speaker or (None if segment.channel is None else f"Channel {segment.channel + 1}")
        if shape is None or shape == CueShape():
            start, end = round(segment.start * 1000), round(segment.end * 1000)
            cues.append(Cue(start, end, lines, speaker, segment.timing == "estimated"))
        else:
            cues += _shaped(segment, shape, speaker)
    return _in_order(cues, None if shape is None else shape.max_characters_per_second)


def _in_order(cues: list[Cue], speed: float | None) -> list[Cue]:
    """With at least a millisecond each, an end not behind the next start, and time to read where there is some."""
    placed: list[Cue] = []
    for index, cue in enumerate(cues):
        start = max(cue.start, placed[-1].start + 1 if placed else 0)
        end = max(cue.end, start + 1)
        if speed is not None:
            end = max(end, start + round(1000 * sum(map(len, cue.lines)) / speed))
            if index + 1 == len(cues):
                end = min(end, max(cue.end, start + 1) + 2000)  # behind the last one nothing follows
        if index + 1 < len(cues):
            end = max(start + 1, min(end, cues[index + 1].start))
        placed.append(Cue(start, end, cue.lines, cue.speaker, cue.estimated))
    return placed


def _shaped(segment: Segment, shape: CueShape, speaker: str | None) -> Iterable[Cue]:
    words, estimated = _timed(segment)
    while words:
        count = _fitting(words, shape)
        part, words = words[:count], words[count:]
        text = "".join(word.text for word in part)
        lines = _wrap(text, shape.max_line_width)
        inner = segment.timing == "estimated" or (estimated and (bool(words) or part[0].start > segment.start))
        yield Cue(round(part[0].start * 1000), round(part[-1].end * 1000), tuple(lines), speaker, inner)


def _fitting(words: list[_Timed], shape: CueShape) -> int:
    """How many of the first words make the next cue: as many as fit, or fewer if a sentence or a pause ends there."""
    count = 1
    while count < len(words) and _fits(words[: count + 1], shape):
        count += 1
    if count == len(words):
        return count
    for pattern, least in ((_SENTENCE_END, count // 3), (_PAUSE, count // 2)):
        for last in range(count, max(least, 1), -1):
            if pattern.search(words[last - 1].text):
                return last
    return count


def _fits(words: list[_Timed], shape: CueShape) -> bool:
    if shape.max_seconds is not None and words[-1].end - words[0].start > shape.max_seconds:
        return False
    if shape.max_line_width is None:
        return True
    lines = _wrap("".join(word.text for word in words), shape.max_line_width)
    return shape.max_line_count is None or len(lines) <= shape.max_line_count


def _wrap(text: str, width: int | None) -> list[str]:
    """Lines of at most `width` characters; a longer word has a line of its own. Two lines are about equally long."""
    if width is None or len(text.strip()) <= width:
        return [text.strip()]
    words = split_words(text)
    lines = _greedy(words, width)
    if len(lines) == 2:
        for narrower in range(len(text) // 2, width):
            balanced = _greedy(words, narrower)
            if len(balanced) == 2:
                return balanced
    return lines


def _greedy(words: list[str], width: int) -> list[str]:
    lines = [""]
    for word in words:
        if lines[-1] and len((lines[-1] + word).strip()) > width:
            lines.append("")
        lines[-1] += word
    return [line.strip() for line in lines]


def _timed(segment: Segment) -> tuple[list[_Timed], bool]:
    """The segment's words with times, and whether these are estimated: then the segment's time is dealt out by the
    words' letters. Words whose times are not known share the time of those around them."""
    texts = [word.text for word in segment.words] or split_words(segment.text)
    known = [(word.start, word.end) for word in segment.words] or [(None, None)] * len(texts)
    edges: list[float | None] = [start for start, _ in known]
    estimated = any(edge is None for edge in edges)
    letters = [max(1, sum(character.isalnum() for character in text)) for text in texts]
    starts: list[float] = []
    for index, edge in enumerate(edges):
        if edge is None:
            following = next((i for i in range(index, len(edges)) if edges[i] is not None), len(edges))
            limit = segment.end if following == len(edges) else edges[following]
            before = segment.start if index == 0 else starts[-1]
            first = max(0, index - 1)
            share = sum(letters[first:index]) / sum(letters[first:following])
            assert limit is not None
            edge = before + max(0.0, limit - before) * share
        starts.append(edge)
    ends = []
    for index, (_, given) in enumerate(known):
        latest = starts[index + 1] if index + 1 < len(starts) else segment.end
        ends.append(latest if given is None else max(starts[index], min(given, max(latest, starts[index]))))
    return [_Timed(text, start, end) for text, start, end in zip(texts, starts, ends, strict=True)], estimated
