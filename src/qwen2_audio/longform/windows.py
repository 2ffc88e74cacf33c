"""Windows of a long sound: what the model hears at once. They are in order, share no sample, and with what is skipped
are the whole sound.

    blocks of samples -> probabilities of speech -> runs of speech -> windows of at most 30 s

A sound that must be cut is cut in the last 5 s of a window, where the mean probability of speech over 200 ms, plus 0.3
times the loudness, is least. Texts of neighbours are never compared, because windows do not overlap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..audio.mel import MEL_HOP, SAMPLE_RATE, WINDOW_TOLERANCE
from .settings import TranscriptionSettings
from .vad import FRAME, SpeechDetector

SHORTEST = 2 * MEL_HOP + 1  # samples that make an audio token
_TOLERANCE = round(WINDOW_TOLERANCE * SAMPLE_RATE)  # samples over a window that are dropped, as segmenters leave them
_SEARCH = 5 * SAMPLE_RATE  # samples before a window's end among which it is cut
_SEARCH_BY_ENERGY = 10 * SAMPLE_RATE
_STEP = SAMPLE_RATE // 100  # cuts lie 10 ms apart
_QUIET = 1e-3  # -60 dBFS: what is below counts as equally quiet, or digital silence would make hum loud
_ON, _OFF = 0.5, 0.35  # probabilities at which speech begins and ends
_CLOSED = 0.3  # s; a shorter pause belongs to the run
_SHORTEST_RUN = 0.1  # s
_AT_ONCE = 1 << 17  # samples looked at together, 8 s


@dataclass(frozen=True, eq=False)
class Window:
    """A part of a sound. The samples are float32 [n] at 16 kHz, at most 30 s."""

    start: int  # its first sample's number in the sound
    samples: np.ndarray
    speech: np.ndarray  # float32: probability of each frame of 512 samples, from sample start // 512 * 512 on; or empty
    channel: int | None = None  # of a sound whose channels are heard one by one

    @property
    def end(self) -> int:
        return self.start + len(self.samples)

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE

    def halves(self) -> tuple[Window, Window]:
        """Both parts, cut where it is quietest in the middle half."""
        quarter = len(self.samples) // 4
        cut = _quietest(self, quarter, 3 * quarter)
        frames = (self.start + cut) // FRAME - self.start // FRAME
        last = (self.start + cut - 1) // FRAME - self.start // FRAME + 1
        first = replace(self, samples=self.samples[:cut], speech=self.speech[:last])
        return first, replace(self, start=self.start + cut, samples=self.samples[cut:], speech=self.speech[frames:])


class Windower:
    """Cuts one sound, which arrives in blocks, into windows; how it is cut into blocks changes nothing.

    Attributes: `skipped`, the spans (first sample, one behind the last) that are in no window, in order; `total`,
    samples so far.
    """

    def __init__(
        self,
        settings: TranscriptionSettings,
        detector: SpeechDetector | None,
        *,
        everything: bool = False,
        by_runs: bool = False,
        channel: int | None = None,
    ) -> None:
        """`everything`: windows are contiguous and nothing is skipped; else they hold the runs of speech, which only
        a `detector` finds: without one, everything is heard. `by_runs`, beside `everything`: runs of speech have their
        windows as without it, and what lies between them has windows of its own."""
        self.skipped: list[tuple[int, int]] = []
        self.total = 0
        self._detector, self._channel = detector, channel
        self._limit = round(settings.window_seconds * SAMPLE_RATE)
        self._merge_gap = round(settings.merge_gap * SAMPLE_RATE) if settings.merge else -1
        spoken = detector is not None and (by_runs or not everything)
        self._runs = _Runs(round(settings.pad * SAMPLE_RATE)) if spoken else None
        self._fills = everything
        self._incoming: list[np.ndarray] = []
        self._sound = _Recent()
        self._done = 0  # samples that are in a window or skipped
        self._group: tuple[int, int] | None = None  # the window that runs are being added to: first sample, end

    def push(self, samples: np.ndarray) -> list[Window]:
        """float32 [n] at 16 kHz -> the windows that are known now."""
        self.total += len(samples)
        self._incoming.append(samples)
        return list(self._advance(last=False)) if self.total - self._sound.end >= _AT_ONCE else []

    def finish(self) -> list[Window]:
        """The remaining windows; afterwards `skipped` is complete."""
        windows = list(self._advance(last=True))
        self._skip_to(self.total)
        return windows

    def _advance(self, *, last: bool) -> Iterator[Window]:
        samples, self._incoming = np.concatenate([np.zeros(0, np.float32), *self._incoming]), []
        # Blocks of one size, so that a decision never depends on how the sound arrived.
        for start in range(0, len(samples), _AT_ONCE):
            block = samples[start : start + _AT_ONCE]
            if len(block) < _AT_ONCE and not last:
                self._incoming = [block]
                return
            self._sound.add(block, self._detector.push(block) if self._detector else np.zeros(0, np.float32))
            yield from self._speech(last=False) if self._runs else self._contiguous(last=False)
        if last:
            self._sound.add(np.zeros(0, np.float32), self._detector.finish() if self._detector else np.zeros(0))
            yield from self._speech(last=True) if self._runs else self._contiguous(last=True)

    # -- everything

    def _contiguous(self, *, last: bool) -> Iterator[Window]:
        while self._sound.end - self._done > self._limit + _TOLERANCE:
            yield self._window(self._cut(self._done))
        if last and self._sound.end - self._done >= SHORTEST:
            yield self._window(self._sound.end)
        self._sound.drop(self._done)

    # -- runs of speech

    def _speech(self, *, last: bool) -> Iterator[Window]:
        assert self._runs is not None
        self._runs.push(self._sound.new_speech(), self._sound.end if last else None)
        for start, end in self._runs.take():
            yield from self._add_run(start, end)
        earliest = self._sound.end if last else self._runs.earliest(self._sound.known)  # that a later run can begin
        begun = self._runs.begun  # where the run begins that goes on
        if begun is not None and self._group is not None and not self._fits(begun, self._runs.reached):
            yield from self._emit(*self._group)
        while begun is not None and self._runs.reached - begun > self._limit + _TOLERANCE:
            yield from self._emit(begun, cut := self._cut(begun))
            begun = self._runs.begun = cut
        if self._group is not None and (last or (begun is None and earliest - self._group[1] > self._merge_gap)):
            yield from self._emit(*self._group)
        needed = [earliest, begun, None if self._group is None else self._group[0]]
        first = min(position for position in needed if position is not None)  # of the windows that may come
        while self._fills and first - self._done > self._limit:
            yield self._window(self._cut(self._done))
        if self._fills and last:
            yield from self._leave(self._sound.end)
        self._sound.drop(min(first, self._done) if self._fills else first)

    def _add_run(self, start: int, end: int) -> Iterator[Window]:
        if self._group is not None and self._fits(start, end):
            self._group = (self._group[0], end)
            return
        if self._group is not None:
            yield from self._emit(*self._group)
        while end - start > self._limit + _TOLERANCE:
            yield from self._emit(start, cut := self._cut(start))
            start = cut
        self._group = (start, end)

    def _fits(self, start: int, end: int) -> bool:
        """Whether a run may join the group."""
        assert self._group is not None
        return start - self._group[1] <= self._merge_gap and end - self._group[0] <= self._limit

    # -- both

    def _cut(self, start: int) -> int:
        """Where to end a window that begins at `start` and would be longer than the limit."""
        window = self._sound.window(start, start + self._limit + _TOLERANCE, self._channel)
        search = min(_SEARCH if len(window.speech) else _SEARCH_BY_ENERGY, self._limit // 3)
        return start + _quietest(window, self._limit - search, self._limit)

    def _emit(self, start: int, end: int) -> Iterator[Window]:
        """A window of speech, behind those of what lies before it."""
        self._group = None
        yield from self._leave(start)
        yield self._window(end)  # with the samples before `start` that make no window by themselves

    def _leave(self, position: int) -> Iterator[Window]:
        """What lies before `position` in no window: skipped, or heard."""
        if not self._fills:
            self._skip_to(position)
            return
        while position - self._done > self._limit:
            yield self._window(self._cut(self._done))
        if position - self._done >= SHORTEST:
            yield self._window(position)

    def _window(self, end: int) -> Window:
        """From where the last one ended to `end`, or as far as a window reaches."""
        start, self._done = self._done, min(end, self._done + self._limit)
        return self._sound.window(start, self._done, self._channel)

    def _skip_to(self, position: int) -> None:
        if position > self._done:
            self.skipped.append((self._done, position))
            self._done = position


class _Runs:
    """Runs of speech from probabilities: pauses under 0.3 s closed, runs under 0.1 s dropped, both ends padded with
    sound, at most half of the pause between two of them."""

    def __init__(self, pad: int) -> None:
        self.begun: int | None = None  # first sample, padded, of the run that goes on
        self._pad = pad
        self._found: list[tuple[int, int]] = []
        self._frame = 0
        self._on = False  # the last frame is speech
        self._run: tuple[int, int] | None = None  # of the run that goes on, or may: without padding
        self._before = 0  # end of the run before it, without padding

    def push(self, speech: np.ndarray, end: int | None) -> None:
        """Probabilities of the next frames; `end`: the sound ends there, in samples."""
        wait = max(round(_CLOSED * SAMPLE_RATE), 2 * self._pad)  # after it no later run changes this one's end
        for probability in speech.tolist():
            start, stop = self._frame * FRAME, (self._frame + 1) * FRAME
            self._frame += 1
            self._on = probability >= (_OFF if self._on else _ON)
            if self._on:
                if self._run is not None and start - self._run[1] >= round(_CLOSED * SAMPLE_RATE):
                    self._close(self._run[1] + (start - self._run[1]) // 2)
                if self._run is None:
                    self._run = (start, stop)
                    middle = self._before + (start - self._before) // 2  # of the pause
                    self.begun = max(start - self._pad, middle if self._before else 0)
                self._run = (self._run[0], stop)
            elif self._run is not None and stop - self._run[1] >= wait:
                self._close(stop)
        if end is not None and self._run is not None:
            self._close(end)

    @property
    def reached(self) -> int:
        """The end, so far and without padding, of the run that goes on."""
        return 0 if self._run is None else self._run[1]

    def take(self) -> list[tuple[int, int]]:
        """The runs found since the last call: first sample and end, padded."""
        found, self._found = self._found, []
        return found

    def earliest(self, known: int) -> int:
        """The first sample that a run which is not found yet can have, where frames are known up to `known`."""
        return max(0, known - self._pad - FRAME)

    def _close(self, latest: int) -> None:
        assert self._run is not None and self.begun is not None
        start, end = self._run
        if end - start >= round(_SHORTEST_RUN * SAMPLE_RATE):
            self._found.append((self.begun, min(end + self._pad, latest)))
            self._before = end
        self._run = self.begun = None


class _Recent:
    """The part of a sound that may still be needed: its samples, and the probabilities of its frames."""

    def __init__(self) -> None:
        self._samples: np.ndarray = np.zeros(0, np.float32)
        self._speech: np.ndarray = np.zeros(0, np.float32)
        self._first_frame = 0  # of those kept; samples begin where it does
        self._seen = 0  # frames handed out by `new_speech`

    @property
    def end(self) -> int:
        return self._first_frame * FRAME + len(self._samples)

    @property
    def known(self) -> int:
        """Samples whose probabilities are known."""
        return (self._first_frame + len(self._speech)) * FRAME

    def add(self, samples: np.ndarray, speech: np.ndarray) -> None:
        self._samples = np.concatenate([self._samples, samples])
        self._speech = np.concatenate([self._speech, speech]).astype(np.float32, copy=False)

    def new_speech(self) -> np.ndarray:
        """Probabilities that came since the last call."""
        speech = self._speech[self._seen - self._first_frame :]
        self._seen += len(speech)
        return speech

    def drop(self, position: int) -> None:
        """Forget what lies before `position`."""
        frames = min(position // FRAME - self._first_frame, len(self._samples) // FRAME)
        if frames > 0:
            self._first_frame += frames
            self._samples, self._speech = self._samples[frames * FRAME :].copy(), self._speech[frames:].copy()

    def window(self, start: int, end: int, channel: int | None) -> Window:
        origin = self._first_frame * FRAME
        first, last = start // FRAME - self._first_frame, -(-end // FRAME) - self._first_frame
        return Window(
            start, self._samples[start - origin : end - origin].copy(), self._speech[first:last].copy(), channel
        )


def _quietest(window: Window, low: int, high: int) -> int:
    """The sample of a window in [low, high] at which a cut does least harm; the latest of equal ones."""
    ends = np.arange(high, low - 1, -_STEP)  # from the latest on
    loudness = _loudness(window.samples, 0.1 if len(window.speech) else 0.3)
    place = np.minimum(ends // _STEP, len(loudness) - 1)
    if not len(window.speech):
        return int(ends[np.argmin(loudness[place])])
    spread = max(float(np.ptp(loudness)), 1e-9)
    score = 0.3 * (loudness[place] - loudness.min()) / spread
    hundredths = (np.arange(len(loudness)) * _STEP + window.start) // FRAME - window.start // FRAME
    speech = window.speech[np.minimum(hundredths, len(window.speech) - 1)]
    return int(ends[np.argmin(score + _moving_mean(speech, round(0.2 * SAMPLE_RATE / _STEP))[place])])


def _loudness(samples: np.ndarray, seconds: float) -> np.ndarray:
    """log10 of the mean magnitude over `seconds` around each 10 ms, -60 dBFS at least: float64 [n / 160 + 1]."""
    steps = np.add.reduceat(np.abs(samples), np.arange(0, len(samples), _STEP)) / _STEP if len(samples) else np.zeros(1)
    mean = _moving_mean(np.append(steps, steps[-1]), round(seconds * SAMPLE_RATE / _STEP))
    result: np.ndarray = np.log10(np.maximum(mean, _QUIET))
    return result


def _moving_mean(values: np.ndarray, count: int) -> np.ndarray:
    """The mean of the `count` values around each boundary i, which lies before value i; fewer at both ends."""
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    middle = np.arange(len(values))
    low, high = np.maximum(middle - count // 2, 0), np.minimum(middle + count // 2, len(values))
    result: np.ndarray = (sums[high] - sums[low]) / np.maximum(high - low, 1)
    return result
