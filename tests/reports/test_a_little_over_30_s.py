"""A clip that ffmpeg's segmenter cut at "30 s" lasts 30.016 s: heard as a whole window, and said, everywhere."""

from __future__ import annotations

import io
import re
import wave
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from qwen2_audio.audio import mel
from qwen2_audio.errors import AudioError
from qwen2_audio.inputs.clip import load_clip
from qwen2_audio.serve.answers import heard_body
from qwen2_audio.train.clips import read_clip
from qwen2_audio.types import Heard


def wav(seconds: float) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes((np.sin(np.arange(round(seconds * 16_000)) * 0.1) * 9000).astype("<i2").tobytes())
    return file.getvalue()


@pytest.mark.parametrize("seconds", [30.016, 30.1, 30 + 1 / 16_000])
def test_it_is_heard_as_a_whole_window_and_said(seconds: float) -> None:
    for clip in (load_clip(wav(seconds)), read_clip(wav(seconds), 1)):
        assert len(clip.waveform) == mel.WINDOW_SAMPLES
        assert (clip.heard.seconds, clip.heard.tokens) == (30.0, 750)
        assert re.fullmatch(r"Clip 1 lasts 30\.\d+ s; its first 30 s are heard, a whole window\.", clip.heard.notes[0])
        assert heard_body([clip.heard]) == [{"seconds": 30.0, "tokens": 750, "notes": list(clip.heard.notes)}]
    np.testing.assert_array_equal(load_clip(wav(seconds)).log_mel(128), load_clip(wav(30)).log_mel(128))


def test_exactly_a_window_needs_no_note_and_more_than_the_tolerance_is_refused(tmp_path: Path) -> None:
    assert load_clip(wav(30)).heard == Heard(30.0, 750)
    (tmp_path / "talk.wav").write_bytes(wav(30.11))
    for read in (load_clip, lambda source: read_clip(source, 1)):
        with pytest.raises(AudioError, match=r"lasts 30\.11 s, and 30 s are heard at a time"):
            read(tmp_path / "talk.wav")


def test_the_page_has_the_same_tolerance_and_cuts_nothing_below_it() -> None:
    source = (files("qwen2_audio.serve") / "static" / "wav.js").read_text()
    constants = dict(re.findall(r"const (LONGEST|TOLERANCE) = ([\d.]+);", source))
    assert {name: float(value) for name, value in constants.items()} == {
        "LONGEST": mel.WINDOW_SECONDS,
        "TOLERANCE": mel.WINDOW_TOLERANCE,
    }
    assert "slice(0, LONGEST * RATE)" not in source
