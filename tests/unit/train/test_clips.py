"""Clips of training: the quick way through plain WAV files gives what the decoder gives."""

import struct
import wave

import numpy as np
import pytest

from qwen2_audio.audio import arrays, decode, io
from qwen2_audio.audio.limits import Limits
from qwen2_audio.errors import AudioError
from qwen2_audio.inputs import clip
from qwen2_audio.train import clips


def write(path, samples, rate=16_000, channels=1):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


@pytest.fixture
def samples():
    return np.random.default_rng(0).integers(-32768, 32767, 9600)


def test_plain_wav_is_read_without_the_decoder_and_equal(tmp_path, samples, monkeypatch):
    path = write(tmp_path / "a.wav", samples)
    monkeypatch.setattr(clips, "read_plain_wav", lambda *_: None)
    decoded = clips.read_clip(path, 1).waveform
    monkeypatch.undo()
    monkeypatch.setattr(clips, "EncodedSound", None)
    quick = clips.read_clip(path, 1).waveform
    assert quick.dtype == decoded.dtype == np.float32
    assert np.array_equal(quick, decoded)
    assert np.array_equal(clips.read_clip(path.read_bytes(), 1).waveform, decoded)


@pytest.mark.parametrize("form", [{"rate": 8000}, {"channels": 2}])
def test_other_wav_files_go_through_the_decoder(tmp_path, samples, form):
    with write(tmp_path / "a.wav", samples, **form).open("rb") as file:
        assert clips.read_plain_wav(file, "a.wav", Limits()) is None
        assert file.tell() == 0


def test_a_file_that_was_cut_off_is_refused(tmp_path, samples):
    path = write(tmp_path / "a.wav", samples)
    path.write_bytes(path.read_bytes()[:9000])
    with path.open("rb") as file:
        assert clips.read_plain_wav(file, "a.wav", Limits()) is None
    with pytest.raises(AudioError):
        clips.read_clip(path, 1)


def test_an_empty_or_too_short_clip_is_refused(tmp_path, samples):
    with pytest.raises(AudioError):
        clips.read_clip(write(tmp_path / "a.wav", samples[:0]), 1)
    with pytest.raises(AudioError, match="too short"):
        clips.read_clip(write(tmp_path / "b.wav", samples[:100]), 1)


@pytest.mark.parametrize(("form", "decoded"), [({}, 0), ({"rate": 8000}, 1), ({"channels": 2}, 1)])
def test_a_clip_is_decoded_once_and_loaded_by_nothing_else(tmp_path, samples, monkeypatch, form, decoded):
    path, calls = write(tmp_path / "a.wav", samples, **form), []

    def count(owner, name):
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, **options: calls.append(name) or original(*args, **options))

    count(decode.EncodedSound, "decode")
    for owner, name in ((io, "load"), (clip, "load_with_notes"), (io, "channels_from_array"), (arrays, "from_array")):
        count(owner, name)
    assert clips.read_clip(path, 1).heard.seconds > 0
    assert calls == ["decode"] * decoded


def test_samples_that_were_never_scaled_are_refused(tmp_path):
    """32-bit floats in a WAV file, between -32768 and 32767: nothing but noise at the volume the model knows."""
    data = np.full(1600, 30_000.0, "<f4").tobytes()
    form = struct.pack("<HHIIHH", 3, 1, 16_000, 64_000, 4, 32)
    header = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data))
    (tmp_path / "a.wav").write_bytes(b"RIFF" + struct.pack("<I", len(header) + len(data)) + header + data)
    with pytest.raises(AudioError, match=r"Clip 1 reaches 30,000; expected samples between -1 and 1\."):
        clips.read_clip(tmp_path / "a.wav", 1)
