"""Clips of training: the quick way through plain WAV files gives what the decoder gives."""

import wave

import numpy as np
import pytest

from qwen2_audio.errors import AudioError
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
    monkeypatch.setattr(clips, "_plain_wav", lambda file: None)
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
        assert clips._plain_wav(file) is None
        assert file.tell() == 0


def test_a_file_that_was_cut_off_is_refused(tmp_path, samples):
    path = write(tmp_path / "a.wav", samples)
    path.write_bytes(path.read_bytes()[:9000])
    with path.open("rb") as file:
        assert clips._plain_wav(file) is None
    with pytest.raises(AudioError):
        clips.read_clip(path, 1)


def test_an_empty_or_too_short_clip_is_refused(tmp_path, samples):
    with pytest.raises(AudioError):
        clips.read_clip(write(tmp_path / "a.wav", samples[:0]), 1)
    with pytest.raises(AudioError, match="too short"):
        clips.read_clip(write(tmp_path / "b.wav", samples[:100]), 1)
