"""What follows a gap in a damaged file keeps its time."""

import io

import av
import numpy as np
import pytest

from qwen2_audio.audio.io import SoundStream, SoundWarning, load

RATE = 16_000
SIGNAL = 10.5  # s at which a loud second begins


def encoded(form, codec, seconds=13) -> bytearray:
    """Noise, which does not compress, with a loud second in it."""
    file, random = io.BytesIO(), np.random.default_rng(0)
    samples = random.integers(-1500, 1500, seconds * RATE, np.int16)
    samples[round(SIGNAL * RATE) : round((SIGNAL + 1) * RATE)] *= 15
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream(codec, rate=48_000 if codec == "libopus" else RATE, layout="mono")
        resampler = av.AudioResampler(stream.codec_context.format, "mono", stream.rate)
        for start in range(0, len(samples), 1024):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024].copy(), format="s16", layout="mono")
            frame.rate, frame.pts = RATE, start
            for out in resampler.resample(frame):
                container.mux(stream.encode(out))
        container.mux(stream.encode(None))
    return bytearray(file.getvalue())


def damaged(form, codec) -> bytes:
    data = encoded(form, codec)
    first, last = int(len(data) * 0.35), int(len(data) * 0.5)
    data[first:last] = np.random.default_rng(1).bytes(last - first)
    return bytes(data)


def onset(samples) -> float:
    """Second at which the loud second begins."""
    loud = np.abs(samples[: len(samples) // 160 * 160]).reshape(-1, 160).mean(axis=1)
    return float(np.argmax(loud > 0.5 * np.sort(loud)[-50])) / 100


FORMS = [
    ("flac", "flac", 0.1),
    ("ogg", "libopus", 0.1),
    ("mp4", "aac", 0.1),
    ("matroska", "aac", 0.1),
    ("mp3", "mp3", 0.3),
]


@pytest.mark.parametrize(("form", "codec", "tolerance"), FORMS)
def test_what_follows_a_gap_keeps_its_time(form, codec, tolerance):
    data = damaged(form, codec)
    stream = SoundStream(data, fill_gaps=True)
    filled = np.concatenate([block for (block,) in stream.blocks()])
    assert onset(filled) == pytest.approx(SIGNAL, abs=tolerance)
    (note,) = stream.notes
    assert "s of silence stand for what is missing" in note
    with pytest.warns(SoundWarning):
        plain = load(data)
    assert len(filled) - len(plain) > 0.8 * RATE and onset(plain) < SIGNAL - 0.8, "else this shows nothing"


@pytest.mark.parametrize(("form", "codec", "_"), FORMS)
def test_a_whole_file_is_not_changed(form, codec, _):
    data = bytes(encoded(form, codec))
    stream = SoundStream(data, fill_gaps=True)
    np.testing.assert_array_equal(np.concatenate([block for (block,) in stream.blocks()]), load(data))
    assert stream.notes == []
