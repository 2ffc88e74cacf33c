"""A transcript's picture: what was said, over the spectrogram of its sound, in rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..audio.io import SoundStream
from ..audio.mel import MEL_HOP, SAMPLE_RATE, WINDOW_FRAMES, WINDOW_SAMPLES, log_mel, num_frames
from ..audio.spectrogram import Row, save_rows_png
from ..checkpoint.json_file import replacing
from .transcribe import LIMITS, part_of
from .transcript import Transcript

_SHORTEST_ROW = 30  # s: words can be read
_MOST_ROWS = 20
_COLUMNS = 1500  # of a row, at most


def save_picture(
    transcript: Transcript, source: Any, path: Path, span: tuple[float, float | None] = (0.0, None)
) -> None:
    """Draw a PNG file, whole or not at all, of the part of a sound that was heard; the sound is read again, in bounded
    memory. Raises ConfigError where matplotlib is not installed, and AudioError and OSError as reading and writing do.
    """
    begin, seconds = span[0], transcript.seconds - span[0]
    length = max(_SHORTEST_ROW, _SHORTEST_ROW * -(-seconds // (_SHORTEST_ROW * _MOST_ROWS)))
    frames = round(length * SAMPLE_RATE / MEL_HOP)
    pooled = next(n for n in range(1, WINDOW_FRAMES + 1) if WINDOW_FRAMES % n == 0 and n * _COLUMNS >= frames)
    rows = []
    for number, columns in enumerate(_rows(source, span, round(length) // _SHORTEST_ROW, pooled)):
        start = begin + number * length
        drawn = columns.shape[1] * pooled * MEL_HOP / SAMPLE_RATE
        inside = [s for s in transcript.segments if s.start < start + length and s.end > start and s.text]
        words = [(word.start, word.text.strip()) for s in inside for word in s.words if word.start is not None]
        words = [(at, word) for at, word in words if start <= at < start + length and length <= 2 * _SHORTEST_ROW]
        rows.append(
            Row(
                start, length, columns, min(drawn, seconds - number * length),
                [(max(s.start, start), min(s.end, start + length), " ".join(s.text.split())) for s in inside],
                words,
            )
        )  # fmt: skip
    if rows:
        with replacing(path) as temporary:
            save_rows_png(rows, temporary, title=transcript.name)


def _rows(source: Any, span: tuple[float, float | None], windows: int, pooled: int) -> Iterator[np.ndarray]:
    """The loudest of `pooled` frames each, float32 [128, columns], of so many windows of 30 s at a time."""
    stream = SoundStream(source, limits=LIMITS, fill_gaps=True)
    row, rest = list[np.ndarray](), np.zeros(0, np.float32)
    for (block,) in part_of(stream, round(span[0] * SAMPLE_RATE), span[1]):
        rest = np.concatenate([rest, block])
        while len(rest) >= WINDOW_SAMPLES:
            row.append(_columns(rest[:WINDOW_SAMPLES], pooled))
            rest = rest[WINDOW_SAMPLES:]
            if len(row) == windows:
                yield np.concatenate(row, axis=1)
                row = []
    if len(rest) > MEL_HOP:
        row.append(_columns(rest, pooled))
    if row:
        yield np.concatenate(row, axis=1)


def _columns(samples: np.ndarray, pooled: int) -> np.ndarray:
    mel = log_mel(samples)[:, : num_frames(len(samples))]
    columns: np.ndarray = np.maximum.reduceat(mel, np.arange(0, mel.shape[1], pooled), axis=1)
    return columns
