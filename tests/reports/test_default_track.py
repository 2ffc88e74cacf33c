"""Of several audio tracks the default one is heard: the silence of track 0 was."""

from __future__ import annotations

import io
import warnings
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition

from qwen2_audio.audio import load
from qwen2_audio.audio.decode import read_header
from qwen2_audio.audio.io import SoundWarning
from qwen2_audio.inputs.clip import load_clip
from qwen2_audio.serve.answers import heard_body
from qwen2_audio.train.clips import read_clip
from qwen2_audio.types import Heard

CODECS = {"matroska": "flac", "webm": "libopus", "mp4": "aac", "mov": "pcm_s16le"}


def tracks(form: str, default: int | None, count: int = 2, seconds: int = 1) -> bytes:
    """A file whose audio track number `default` is marked as the default and is the only one with sound in it."""
    file, loud = io.BytesIO(), default if default is not None else count - 1
    with av.open(file, "w", format=form) as container:
        streams: list[Any] = [container.add_stream(CODECS[form], rate=48000, layout="mono") for _ in range(count)]
        for number, stream in enumerate(streams):
            stream.disposition = Disposition.default if number == default else Disposition(0)
            stream.metadata["language"] = ("eng", "deu", "fra")[number]
        for number, stream in enumerate(streams):
            length = seconds * 48000 * (2 if default is None and number == loud else 1)
            tone = np.sin(np.arange(length) * 0.05) * (0.3 if number == loud else 0)
            samples = (tone[None] * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.pts = 48000, 0
            resampler = av.AudioResampler(format=stream.format.name, layout="mono", rate=48000, frame_size=960)
            for piece in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(stream.encode(piece))
            container.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize("form", CODECS)
@pytest.mark.parametrize("default", [0, 1])
def test_the_default_track_is_heard_and_named(form: str, default: int) -> None:
    data = tracks(form, default)
    with pytest.warns(
        SoundWarning, match=rf"has 2 audio tracks; track {default + 1}( \((eng|deu)\))?, the default one"
    ):
        samples = load(data)
    assert np.abs(samples).max() > 0.2
    assert read_header(io.BytesIO(data)).seconds == pytest.approx(1, abs=0.2)


def test_every_way_in_takes_it() -> None:
    data = tracks("matroska", 2, count=3)
    for read in (lambda: load_clip(data), lambda: read_clip(data, 1)):
        with pytest.warns(SoundWarning, match="3 audio tracks; track 3"):
            assert np.abs(read().waveform).max() > 0.2


def test_one_track_needs_no_note() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(tracks("matroska", 0, count=1))


def test_the_notes_are_in_what_was_heard() -> None:
    with pytest.warns(SoundWarning):
        heard = load_clip(tracks("webm", 1)).heard
    assert "track 2" in heard.notes[0]
    assert heard_body([heard])[0]["notes"] == [heard.notes[0]]
    assert "notes" not in heard_body([Heard(1.0, 25)])[0]
