"""The confidence below which a checkpoint's transcripts are doubtful: found on clips whose texts are known.

Each clip is transcribed as `m.transcribe` does it. The threshold flags as many wrong transcripts as it can while at
most a given share of the right ones is flagged. Another checkpoint's threshold, such as Whisper's, says nothing here.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint.json_file import read_json, write_json
from ..engine.request import RequestHandle
from ..errors import ConfigError, EvaluationError
from ..longform.asking import Model, Task, WindowAsker
from ..longform.settings import FILE, TranscriptionSettings
from ..longform.windows import Window
from .word_errors import align

FALSE_ALARMS = 0.05  # share of the right transcripts that may be flagged
FEWEST = 20  # right transcripts, and wrong ones, that a threshold can be chosen by
BINS = 10
IN_FLIGHT = 32  # clips with the model at a time


@dataclass(frozen=True, eq=False)
class Labelled:
    """A clip, float32 [n] at 16 kHz, at most 30 s, and the words that are said in it."""

    samples: np.ndarray
    words: Sequence[str]


@dataclass(frozen=True)
class Judged:
    """A transcript's confidence, its wrong words, and how many there are in the reference."""

    confidence: float
    errors: int
    words: int

    @property
    def right(self) -> bool:
        return self.errors == 0


@dataclass(frozen=True)
class Bin:
    """The transcripts of a range of confidence."""

    low: float  # smallest and largest confidence
    high: float
    rows: int
    right: int
    word_errors: float  # a word


@dataclass(frozen=True)
class Calibration:
    """A threshold, and how well it tells wrong transcripts from right ones."""

    threshold: float
    false_alarms: float  # asked for, at most
    rows: int
    right: int
    flagged_right: int
    flagged_wrong: int
    unseen_right: float  # shares that are flagged where the threshold was chosen on the other half of the rows
    unseen_wrong: float
    auc: float  # how likely a right transcript has more confidence than a wrong one
    bins: tuple[Bin, ...]
    left_out: int = 0  # clips that another guard flags already

    @property
    def wrong(self) -> int:
        return self.rows - self.right

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "bins"}
        return {**values, "wrong": self.wrong, "bins": [vars(one) for one in self.bins]}


def judge(
    model: Model,
    settings: TranscriptionSettings,
    clips: Iterable[Labelled],
    words_of: Callable[[str], Sequence[str]],
    advance: Callable[[], None] = lambda: None,
) -> tuple[list[Judged], int]:
    """Transcribe each clip and count its wrong words. Returns also how many another guard has flagged, which are left
    out, since they need no threshold. Raises the model's errors, ConfigError without rapidfuzz."""
    asker = WindowAsker(model, Task(recover=False), settings)
    judged, left_out = list[Judged](), 0
    for clip, window, handle in _asked(asker, clips):
        (segment,) = asker.segments(window, handle)
        advance()
        if set(segment.flags) - {"low_confidence"} or segment.confidence is None:
            left_out += 1
            continue
        operations = align(list(clip.words), list(words_of(segment.text)))
        errors = sum(tag != "equal" for tag, _, _ in operations)
        judged.append(Judged(segment.confidence, errors, len(clip.words)))
    return judged, left_out


def _asked(asker: WindowAsker, clips: Iterable[Labelled]) -> Iterator[tuple[Labelled, Window, RequestHandle | None]]:
    """Each clip with the handle of its answer, in order; some are asked ahead."""
    waiting = deque[tuple[Labelled, Window, RequestHandle | None]]()
    try:
        for clip in clips:
            window = Window(0, clip.samples, np.zeros(0, np.float32))
            waiting.append((clip, window, asker.submit(window)))
            if len(waiting) >= IN_FLIGHT:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        for _, _, handle in waiting:
            if handle is not None:
                handle.cancel()


def calibrate(judged: Sequence[Judged], *, false_alarms: float = FALSE_ALARMS, left_out: int = 0) -> Calibration:
    """Choose the threshold. Raises EvaluationError where too few transcripts are right, or wrong."""
    if not 0 <= false_alarms < 1:
        raise ConfigError(f"--false-alarms is {false_alarms}; expected a share from 0 on and below 1, such as 0.05.")
    confidence = np.array([one.confidence for one in judged])
    right = np.array([one.right for one in judged], bool)
    for count, what in ((int(right.sum()), "right"), (int((~right).sum()), "wrong")):
        if count < FEWEST:
            raise EvaluationError(
                f"{count} of {len(judged)} transcripts are {what}; expected at least {FEWEST} right ones and {FEWEST} "
                "wrong ones to choose a threshold by. Give more rows, or harder ones."
            )
    threshold = _threshold(confidence[right], false_alarms)
    flagged = confidence < threshold
    halves = [np.arange(len(judged)) % 2 == half for half in (0, 1)]
    unseen = np.zeros(len(judged), bool)
    for half in halves:
        unseen[half] = confidence[half] < _threshold(confidence[~half & right], false_alarms)
    return Calibration(
        threshold, false_alarms, len(judged), int(right.sum()), int(flagged[right].sum()), int(flagged[~right].sum()),
        round(float(unseen[right].mean()), 6), round(float(unseen[~right].mean()), 6),
        round(_auc(confidence[right], confidence[~right]), 6), _bins(judged), left_out,
    )  # fmt: skip


def _threshold(right: np.ndarray, false_alarms: float) -> float:
    """The largest of 4 digits below which lies at most this share of the right transcripts' confidences: of all
    thresholds that keep to it, it flags the most wrong ones."""
    ordered = np.sort(right)
    allowed = math.floor(false_alarms * len(ordered) + 1e-9)
    return math.floor(1e4 * float(ordered[allowed])) / 1e4 if len(ordered) else 0.0


def _auc(right: np.ndarray, wrong: np.ndarray) -> float:
    ordered = np.sort(wrong)
    below, up_to = np.searchsorted(ordered, right, "left"), np.searchsorted(ordered, right, "right")
    return float((below + up_to).mean() / (2 * len(wrong)))


def _bins(judged: Sequence[Judged]) -> tuple[Bin, ...]:
    """Of equally many transcripts each, from the least confident on."""
    ordered = sorted(judged, key=lambda one: one.confidence)
    bins = []
    for part in np.array_split(np.arange(len(ordered)), min(BINS, len(ordered))):
        rows = [ordered[number] for number in part]
        words = sum(row.words for row in rows)
        bins.append(
            Bin(
                rows[0].confidence, rows[-1].confidence, len(rows), sum(row.right for row in rows),
                sum(row.errors for row in rows) / max(words, 1),
            )
        )  # fmt: skip
    return tuple(bins)


def write_threshold(folder: Path, threshold: float, elsewhere: Path, *, beside: bool = True) -> Path:
    """Set `min_confidence` in the transcription.json of the checkpoint in `folder`, whose other keys stay; where that
    cannot be written, or is not to be, in a copy of it named `elsewhere`. Returns the file that was written.

    Raises ConfigError where neither can be written.
    """
    settings = {**read_json(folder / FILE, ConfigError), "min_confidence": threshold}
    if beside:
        try:
            write_json(folder / FILE, settings)
            return folder / FILE
        except OSError:
            pass
    try:
        write_json(elsewhere, settings)
    except OSError as error:
        raise ConfigError(f"{elsewhere} cannot be written ({error.strerror}); name another file with --out.") from error
    return elsewhere
