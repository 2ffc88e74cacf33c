"""Transcribe sounds of any length: the windows of all of them are asked together, and results come in order.

    sources -> blocks -> windows -> asked, some ahead -> segments -> transcripts

A source is read as far as its windows are asked, so that memory does not grow with its length. What cannot be read
ends its own transcript only.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from ..audio.io import SoundStream
from ..audio.limits import Limits
from ..audio.mel import SAMPLE_RATE
from ..engine.request import RequestHandle
from ..errors import AudioError, Qwen2AudioError
from .asking import Model, Task, WindowAsker
from .guards import flag_other_languages
from .journal import Journal
from .settings import TranscriptionSettings
from .transcript import Segment, Transcript, main_language
from .vad import FRAME, missing_reason, speech_detector
from .windows import Window, Windower
from .word_times_segments import SegmentTimes

# Windows that are asked ahead, 2 MB each: twice as many as an engine computes at a time, so that it finds the next ones
# prepared while the segments of those before are handed out.
MAX_PENDING = 64
PIECE = 8 * SAMPLE_RATE  # samples cut at a time: the first windows of a block are asked before its last ones are found
# A day of sound. The time limit is none, because reading waits for the model.
LIMITS = Limits(max_bytes=64 << 30, max_seconds=24 * 3600.0, deadline=math.inf)


@dataclass(frozen=True)
class Listening:
    """How sounds are read and cut."""

    everything: bool = False  # skip nothing, and cut at pauses only; else windows hold speech
    split_channels: bool = False  # hear each channel by itself
    limits: Limits = LIMITS
    count_first: bool = False  # refuse a sound that is longer than `limits` allow before it is heard
    begin: float = 0.0  # s; what lies before is not heard
    end: float | None = None  # s; nor what lies behind it; None: the sound's end


@dataclass(frozen=True)
class Progress:
    """A window's segments. `position`: s of the source that are done; `seconds`: its length by its header, or None."""

    source: int
    segments: tuple[Segment, ...]
    position: float
    seconds: float | None


@dataclass(frozen=True)
class Finished:
    """A source's whole transcript; with `error`, what was done of it before it could not go on."""

    source: int
    transcript: Transcript
    error: Exception | None = None


@dataclass(eq=False)
class _Source:
    """A source on its way."""

    number: int
    name: str
    stream: SoundStream
    begin: int = 0  # samples before the part that is heard
    journal: Journal | None = None
    segments: list[Segment] = field(default_factory=list)
    windowers: list[Windower] = field(default_factory=list)
    error: Exception | None = None

    @property
    def skipped(self) -> tuple[tuple[float, float], ...]:
        """Spans in seconds that are skipped in every channel."""
        spans = _common([windower.skipped for windower in self.windowers])
        before = [(0, self.begin)] if self.begin and self.windowers else []
        spans = before + [(start + self.begin, end + self.begin) for start, end in spans]
        return tuple((start / SAMPLE_RATE, end / SAMPLE_RATE) for start, end in spans)

    @property
    def total(self) -> int:
        """Samples up to the end of what was read."""
        return max((self.begin + windower.total for windower in self.windowers), default=0)


@dataclass(eq=False)
class _Asked:
    source: _Source
    window: Window | None  # None: the source ends here
    handle: RequestHandle | None = None
    known: list[Segment] | None = None  # by the journal
    error: Exception | None = None  # with which reading ended


def transcribe(
    model: Model,
    sources: Iterable[tuple[Any, str]],
    task: Task,
    settings: TranscriptionSettings,
    listening: Listening | None = None,
    *,
    timeout: float | None = None,
    journals: Sequence[Journal | None] = (),
    times: SegmentTimes | None = None,
) -> Iterator[Progress | Finished]:
    """Progress of each source, in order of time, then its transcript; sources in their order.

    Args:
        model: what is asked.
        sources: pairs of what `audio.io.load` takes and a name for messages.
        timeout: seconds that the model has for a window; a source whose window takes longer ends with TimeoutError.
        journals: of each source, or none; windows that they hold are not asked about, and others are added.
        times: with times of words, and speakers; None: without.

    Closing the iterator cancels what was asked. Raises ConfigError, before anything is read, for a task that the
    checkpoint cannot do, and for times of words that it has no aligner for; errors of a source are in its `Finished`.
    """
    asker, listening = WindowAsker(model, task, settings, timeout), listening or Listening()
    times = times or SegmentTimes()
    if times.words is not None:
        times.words.ensure_available()
    coming = _windows(sources, settings, listening, journals)
    return _run(asker, coming, times, "transcribe" if task.to is None else "translate", journals)


def _run(
    asker: WindowAsker,
    coming: Iterator[_Asked],
    times: SegmentTimes,
    kind: Literal["transcribe", "translate"],
    journals: Sequence[Journal | None],
) -> Iterator[Progress | Finished]:
    pending, exhausted = deque[_Asked](), False
    try:
        while True:
            while not exhausted and len(pending) < MAX_PENDING and not (pending and _ready(pending[0])):
                item = next(coming, None)
                exhausted = item is None
                if item is not None:
                    _submit(asker, item)
                    pending.append(item)
            if not pending:
                return
            item = pending.popleft()
            if item.window is None:
                yield _finished(item, kind)
            elif item.source.error is None:
                yield from _heard(asker, item, times)
            elif item.handle is not None:
                item.handle.cancel()
    finally:
        for item in pending:
            if item.handle is not None:
                item.handle.cancel()
        for journal in filter(None, journals):
            journal.close()


def _ready(item: _Asked) -> bool:
    return item.window is None or item.handle is None or item.handle.done


def _submit(asker: WindowAsker, item: _Asked) -> None:
    if item.window is not None and item.source.error is None:
        journal = item.source.journal
        item.known = None if journal is None else journal.find(item.window)
        try:
            item.handle = asker.submit(item.window) if item.known is None else None
        except Qwen2AudioError as error:
            item.source.error = error


def _heard(asker: WindowAsker, item: _Asked, times: SegmentTimes) -> Iterator[Progress]:
    source, window = item.source, item.window
    assert window is not None
    try:
        segments = asker.segments(window, item.handle) if item.known is None else item.known
        if source.journal is not None and item.known is None:
            source.journal.add(window, segments)
        segments = times.applied(window, segments, source.number)
    except Exception as error:  # out of memory, say: it ends this source, and the others go on
        source.error = error
        return
    finally:
        if item.handle is not None:
            item.handle.cancel()  # without effect on a finished one
    source.segments += segments
    yield Progress(source.number, tuple(segments), window.end / SAMPLE_RATE, source.stream.seconds)


def _finished(end: _Asked, kind: Literal["transcribe", "translate"]) -> Finished:
    source = end.source
    segments = flag_other_languages(sorted(source.segments, key=lambda segment: segment.start))
    notes = [*source.stream.notes]
    if (reason := missing_reason()) is not None:
        notes.append(reason)
    if source.journal is not None:
        source.journal.close()
        notes += [] if source.journal.note is None else [source.journal.note]
    transcript = Transcript(
        tuple(segments),
        source.total / SAMPLE_RATE,
        main_language(segments),
        source.skipped,
        tuple(notes),
        kind,
        source.name,
    )
    return Finished(source.number, transcript, source.error or end.error)


def _windows(
    sources: Iterable[tuple[Any, str]],
    settings: TranscriptionSettings,
    listening: Listening,
    journals: Sequence[Journal | None],
) -> Iterator[_Asked]:
    for number, (given, name) in enumerate(sources):
        stream = SoundStream(
            given, split=listening.split_channels, limits=listening.limits, name=name,
            count_first=listening.count_first, fill_gaps=True,
        )  # fmt: skip
        journal = journals[number] if journals else None
        begin = int(listening.begin * SAMPLE_RATE) // FRAME * FRAME  # windows count frames from the sound's beginning
        source, end = _Source(number, name, stream, begin, journal), None
        blocks = part_of(stream, source.begin, listening.end)
        while end is None and source.error is None:
            try:
                tracks = next(blocks, None)
                end = _Asked(source, None) if tracks is None else None
            except (AudioError, OSError, MemoryError) as error:  # what was read before is heard
                tracks, end = None, _Asked(source, None, error=error)
            yield from (_Asked(source, window) for window in _cut(source, tracks, settings, listening))
        blocks.close()
        yield end or _Asked(source, None)


def part_of(stream: SoundStream, begin: int, end: float | None) -> Generator[list[np.ndarray], None, None]:
    """A sound from sample `begin` on, up to `end` s, in pieces. AudioError where it ends before."""
    position, blocks = 0, stream.blocks()
    last = math.inf if end is None else round(end * SAMPLE_RATE)
    try:
        for tracks in blocks:
            low, high = max(begin - position, 0), int(min(last - position, len(tracks[0])))
            position += len(tracks[0])
            for start in range(low, high, PIECE):
                yield [track[start : min(start + PIECE, high)] for track in tracks]
            if position >= last:
                return
    finally:
        blocks.close()
    if begin and position <= begin:
        lasts = f"{position / SAMPLE_RATE:.2f} s long, and the part to hear begins at {begin / SAMPLE_RATE:.2f} s"
        raise AudioError(f"{stream.name} is {lasts}.")


def _cut(
    source: _Source, tracks: list[np.ndarray] | None, settings: TranscriptionSettings, listening: Listening
) -> list[Window]:
    """The windows that a block of each channel completes; None: that the end completes."""
    for channel in range(len(source.windowers), len(tracks or ())):
        number = channel if listening.split_channels else None
        detector = speech_detector()
        source.windowers.append(Windower(settings, detector, everything=listening.everything, channel=number))
    if tracks is None:
        windows = [window for windower in source.windowers for window in windower.finish()]
    else:
        pairs = zip(source.windowers, tracks, strict=True)
        windows = [window for windower, track in pairs for window in windower.push(track)]
    return sorted((replace(w, start=w.start + source.begin) for w in windows), key=lambda window: window.start)


def _common(spans: list[list[tuple[int, int]]]) -> list[tuple[int, int]]:
    """The parts that lie in a span of every list; each list is in order and its spans are disjoint."""
    common = spans[0] if spans else []
    for others in spans[1:]:
        common = list(_overlaps(common, others))
    return common


def _overlaps(left: list[tuple[int, int]], right: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    i = j = 0
    while i < len(left) and j < len(right):
        start, end = max(left[i][0], right[j][0]), min(left[i][1], right[j][1])
        if start < end:
            yield start, end
        if left[i][1] <= right[j][1]:  # the one that ends first meets nothing more
            i += 1
        else:
            j += 1
