"""Which clips are long, by as much of their sound as it takes to know."""

from __future__ import annotations

import io

import pytest

from kit.clip_files import encoded, wav_bytes
from qwen2_audio.longform.questions.recordings import seconds_of_long
from qwen2_audio.longform.transcribe import LIMITS


@pytest.mark.parametrize(
    ("clip", "seconds"),
    [
        (wav_bytes(75.0), 75.0),
        (wav_bytes(30.2), 30.2),
        (wav_bytes(30.05), None),
        (wav_bytes(1.0), None),
        (b"nothing", None),
        (encoded("mp3", "mp3", 31.0, 32_000), 31.0),
    ],
    ids=["75 s", "over the tolerance", "within it", "1 s", "no sound", "mp3"],
)
def test_seconds(clip, seconds):
    found = seconds_of_long(io.BytesIO(clip), LIMITS)
    assert found is None if seconds is None else found == pytest.approx(seconds, abs=0.01)
