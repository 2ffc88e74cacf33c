"""Formats that PyAV reads are heard, from files that have their signature only; others are named in the refusal."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from qwen2_audio.audio import load
from qwen2_audio.audio.decode import read_header
from qwen2_audio.audio.formats import ALWAYS, demuxers_for
from qwen2_audio.errors import AudioError
from qwen2_audio.train.clips import read_clip

WAVE = (0.3 * np.sin(np.arange(16_000) * 0.1)).astype(np.float32)
BY_LIBSNDFILE = [
    *[("NIST", subtype) for subtype in ("PCM_16", "PCM_24", "PCM_32", "ULAW", "ALAW")],
    *[("VOC", subtype) for subtype in ("PCM_16", "PCM_U8", "ULAW", "ALAW")],
    *[(form, subtype) for form in ("AVR", "SVX", "PVF", "PAF", "IRCAM") for subtype in ("PCM_16",)],
]
BY_FFMPEG = {"mpegts": "aac", "wv": "wavpack", "tta": "tta", "avi": "pcm_s16le", "flv": "aac", "ac3": "ac3"}
MADE = {"voc": "pcm_s16le", "ircam": "pcm_s16le", "sox": "pcm_s32le", "aiff": "pcm_s16be"}


@pytest.mark.parametrize(("form", "subtype"), BY_LIBSNDFILE)
def test_what_libsndfile_reads_is_librosas(tmp_path: Path, form: str, subtype: str) -> None:
    sf = pytest.importorskip("soundfile")
    librosa = pytest.importorskip("librosa")
    path = tmp_path / "a.bin"
    sf.write(path, WAVE, 16_000, format=form, subtype=subtype)
    np.testing.assert_allclose(load(path), librosa.load(path, sr=16_000)[0], rtol=0, atol=1e-6)
    assert len(read_clip(path, 1).waveform) == len(load(path))


@pytest.mark.parametrize("form", [*BY_FFMPEG, *MADE])
def test_what_ffmpeg_writes_is_heard(form: str) -> None:
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream: Any = container.add_stream(
            {**BY_FFMPEG, **MADE}[form], rate=16_000 if form != "ac3" else 48_000, layout="mono"
        )
        frame = av.AudioFrame.from_ndarray(WAVE[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16_000, 0
        resampler = av.AudioResampler(stream.format.name, "mono", stream.rate, frame_size=stream.frame_size or 1000)
        for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
            container.mux(stream.encode(piece))
    samples = load(file.getvalue())
    assert len(samples) == pytest.approx(16_000, abs=2500)  # AAC and AC-3 have whole frames
    assert np.abs(samples[4000:12_000]).max() == pytest.approx(0.3, abs=0.03)
    assert read_header(file).rate == stream.rate


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        (b"MThd\0\0\0\6\0\1\0\1", "is a MIDI file, which holds notes and no sound, which is not read here"),
        (b"dns.\0\0\0\1", "is a little-endian AU file, which is not read here"),
        (
            b"NIST_1A\n   1024\nsample_coding -s26 pcm,embedded-shorten-v2.00\n",
            "compressed by Shorten, which is not read",
        ),
        (b"%PDF-1.7", "is a PDF document, which is not read here"),
        (b"PK\x03\x04", "is a ZIP archive"),
        (b"wvpk", "damaged, cut off, or a WavPack file of a variant that is not read here"),
    ],
)
def test_a_format_that_is_not_read_is_named(head: bytes, sentence: str) -> None:
    with pytest.raises(AudioError, match=sentence):
        load(head + bytes(range(256)) * 8)


def test_rare_formats_are_tried_on_their_signature_only() -> None:
    assert demuxers_for(b"wvpk" + bytes(100)) == ALWAYS + ",wv"
    assert demuxers_for(bytes(4096)) == ALWAYS
    for playlist in ("hls", "concat", "dash", "rtsp", "sdp", "image2", "lavfi"):
        assert playlist not in ALWAYS.split(",")
    for data in (b"#EXTM3U\nhttp://host/a.ts\n", b"ffconcat version 1.0\nfile /etc/passwd\n"):
        with pytest.raises(AudioError, match="is a playlist"):
            load(data)
