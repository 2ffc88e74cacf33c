"""What belongs to a checkpoint and is measured, not trained: its `transcription.json`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qwen2_audio.api.loading import load
from qwen2_audio.checkpoint.json_file import read_json, write_json
from qwen2_audio.errors import ConfigError
from qwen2_audio.evaluate.calibrate import Calibration, Labelled, calibrate, judge, write_threshold
from qwen2_audio.evaluate.nano.mix import SPEECH, Clip, Samples
from qwen2_audio.evaluate.nano.questions import clips_to_transcribe
from qwen2_audio.evaluate.nano.world.utterance import plain
from qwen2_audio.evaluate.word_errors import word_error_rate
from qwen2_audio.longform.settings import FILE

from .crowd import TURNS, Maker

# Runs of speech that share a window, or not; the first is kept unless another has fewer word errors.
WINDOWS: tuple[dict[str, bool | float], ...] = (
    {"merge": False},
    {"merge": True, "merge_gap": 0.7, "window_seconds": 6.0},
    {"merge": True, "merge_gap": 1.5, "window_seconds": 12.0},
)
RECORDINGS = 80  # of two to four utterances, to choose the windows by
ROWS = 200  # of people, and of each kind of the examination's voices, to choose the confidence by


def clips_of(maker: Maker, letters: str, count: int) -> Iterator[tuple[Samples, Clip]]:
    """The first `count` clips with words of these sorts of `crowd.TURNS`."""
    index, left = 0, count
    while left:
        if TURNS[index % len(TURNS)] in letters:
            yield maker(index)
            left -= 1
        index += 1


def choose_windows(folder: Path, maker: Maker, count: int = RECORDINGS) -> dict[str, float]:
    """Set the windows with the fewest word errors; returns those of each, as a share."""
    recordings = list(clips_of(maker, "jJ", count))
    found = {}
    for number, windows in enumerate(WINDOWS):
        _set(folder, windows)
        heard = load(folder, dtype="float32").transcribe([(wave, 16_000) for wave, _ in recordings])
        texts = [(plain(clip.text), plain(one.text)) for (_, clip), one in zip(recordings, heard, strict=True)]
        found[number] = word_error_rate(texts)
    _set(folder, WINDOWS[min(found, key=found.__getitem__)])
    return {str(WINDOWS[number]): round(errors, 4) for number, errors in found.items()}


def choose_confidence(folder: Path, maker: Maker, count: int = ROWS) -> Calibration:
    """Set the confidence below which a transcript is doubtful."""

    def clips() -> Iterator[Labelled]:
        for source in (clips_to_transcribe(count), clips_of(maker, "ke", count)):
            yield from (Labelled(wave, plain(clip.text).split()) for wave, clip in source if clip.kind == SPEECH)

    chat = load(folder, dtype="float32")
    judged, left_out = judge(chat.service(), chat.transcription, clips(), lambda text: plain(text).split())
    found = calibrate(judged, left_out=left_out)
    write_threshold(folder, found.threshold, folder / FILE)
    return found


def _set(folder: Path, windows: dict[str, bool | float]) -> None:
    """Replace the keys about windows in transcription.json; the others stay."""
    kept = {
        key: value
        for key, value in read_json(folder / FILE, ConfigError).items()
        if key not in ("merge", "merge_gap", "window_seconds")
    }
    write_json(folder / FILE, {**windows, **kept})
