"""CTC's forced alignment: which frames are which label of a text that is known (Graves et al. 2006; the best path
instead of their sum).

States of a text with L labels: blank, label 0, blank, label 1, ..., blank; S = 2 L + 1. From a frame to the next a path
stays, goes on by one, or by two where that leaves out a blank between two different labels.

Of a long text only a band of states around the best one is followed, and of the steps back only so many frames are
kept as fit into 64 MB: when they are full, the older half of the best path is decided.
"""

from __future__ import annotations

import numpy as np

from .word_times_letters import WILDCARD

BAND = 4096  # states, about two minutes of speech
_STEPS_BYTES = 64 << 20
_MOVE_EVERY = 16  # frames; a path goes on by 32 states meanwhile
_NEVER = np.float32(-np.inf)


def forced_path(
    log_probs: np.ndarray, labels: np.ndarray, band: int = BAND, steps_bytes: int = _STEPS_BYTES
) -> np.ndarray | None:
    """The best path of all labels, in order, over all frames.

    Args:
        log_probs: float [T, C], class 0 the blank.
        labels: int [L], classes from 1 on, or WILDCARD: in each frame the most likely class of 2 and above, and two
            wildcards need no blank between them.
        band: states that are followed, at least; more where the text's end is not reached.

    Returns:
        int32 [T]: the number of the label that a frame is of, -1 for a blank; None where there are more labels than
        frames can hold.
    """
    labels = np.asarray(labels, np.int64)
    if len(labels) == 0:
        return np.full(len(log_probs), -1, np.int32)
    equal = (labels[1:] == labels[:-1]) & (labels[1:] != WILDCARD)
    if len(labels) + int(equal.sum()) > len(log_probs):
        return None
    while True:
        path = _Trellis(log_probs.shape, labels, equal, band, steps_bytes).run(log_probs)
        if path is not None:
            return np.where(path % 2 == 1, path // 2, -1).astype(np.int32)
        if band >= 2 * len(labels) + 1:  # impossible classes only
            return None
        band *= 4


class _Trellis:
    """The scores of a band of states, frame after frame."""

    def __init__(
        self, shape: tuple[int, ...], labels: np.ndarray, equal: np.ndarray, band: int, steps_bytes: int
    ) -> None:
        self._frames, wildcard = shape  # the wildcard's column is one behind the classes'
        self._states = 2 * len(labels) + 1
        self._width = min(band, self._states)
        self._columns = np.zeros(self._states, np.intp)
        self._columns[1::2] = np.where(labels == WILDCARD, wildcard, labels)
        self._skip = np.full(self._states, _NEVER, np.float32)  # added to a path that leaves out the blank before
        self._skip[1] = 0  # the first frame may be of the first label
        self._skip[3::2] = np.where(equal, _NEVER, np.float32(0))
        rows = min(self._frames, max(4 * _MOVE_EVERY, steps_bytes // self._width))
        self._steps = np.empty((rows, self._width), np.uint8)  # states that the best way to each went on by
        self._lows = np.empty(rows, np.int64)  # the first state of each row
        self._kept = 0  # rows
        self._path = np.empty(self._frames, np.int64)
        self._decided = 0  # frames

    def run(self, log_probs: np.ndarray) -> np.ndarray | None:
        """The state of each frame; None where the last state is not reached."""
        low, width = 0, self._width
        scores = np.full(width + 2, _NEVER, np.float32)  # of states low - 2 .. low + width - 1
        scores[1] = 0  # before the first frame
        for frame in range(self._frames):
            if frame % _MOVE_EVERY == 0 and frame and width < self._states:
                low = self._moved(scores, low)
            if self._kept == len(self._steps):
                self._decide(scores[2:], low)
            values = np.asarray(log_probs[frame], np.float32)
            values = np.append(values, values[2:].max(initial=_NEVER))
            best, one = scores[2:].copy(), scores[1:-1]
            step = self._steps[self._kept]
            np.greater(one, best, out=step, casting="unsafe")
            np.maximum(best, one, out=best)
            two = scores[:-2] + self._skip[low : low + width]
            step[two > best] = 2
            np.maximum(best, two, out=best)
            best += values[self._columns[low : low + width]]
            highest = best.max()
            if highest == _NEVER:
                return None
            scores[:2] = _NEVER
            np.subtract(best, highest, out=scores[2:])
            self._lows[self._kept] = low
            self._kept += 1
        if low + width < self._states:
            return None
        last = scores[-2:]
        if last.max() == _NEVER:
            return None
        self._trace(self._states - 2 + int(np.argmax(last)), self._kept)
        return self._path

    def _moved(self, scores: np.ndarray, low: int) -> int:
        """The band's first state, so that the best state is in the middle; never less than before."""
        best = low + int(np.argmax(scores[2:]))
        new = min(max(low, best - self._width // 2), self._states - self._width)
        if new > low:
            scores[2 : 2 + self._width - (new - low)] = scores[2 + new - low :].copy()
            scores[2 + self._width - (new - low) :] = _NEVER
        return new

    def _decide(self, scores: np.ndarray, low: int) -> None:
        """Decide the older half of the frames kept by the best path, and drop the paths that differ from it there."""
        half = self._kept // 2
        self._trace(low + int(np.argmax(scores)), self._kept)
        states = low + np.arange(len(scores))
        for row in range(self._kept - 1, half, -1):
            states = states - self._steps[row, np.clip(states - self._lows[row], 0, self._width - 1)]
        scores[states != self._path[self._decided + half]] = _NEVER
        self._steps[: self._kept - half] = self._steps[half : self._kept].copy()
        self._lows[: self._kept - half] = self._lows[half : self._kept].copy()
        self._kept -= half
        self._decided += half

    def _trace(self, state: int, rows: int) -> None:
        """Write down the path that ends in `state`."""
        for row in range(rows - 1, -1, -1):
            self._path[self._decided + row] = state
            state -= int(self._steps[row, state - self._lows[row]])
