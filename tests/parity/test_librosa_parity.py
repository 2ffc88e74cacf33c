"""audio.load against librosa.load(sr=16000): bit for bit where both decode the same bits, 1e-6 for lossy codecs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qwen2_audio.audio import load

librosa = pytest.importorskip("librosa")
sf = pytest.importorskip("soundfile")

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "audio"
RATES = (8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 96000)


def sound(samples: int, channels: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(samples, channels)) * 0.2
    return np.clip(noise, -1, 0.999)


def reference(path: Path) -> np.ndarray:
    return librosa.load(path, sr=16000)[0]


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("rate", [16000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2, 3, 8])
def test_wav_of_every_sample_format_is_bit_exact(tmp_path: Path, subtype: str, rate: int, channels: int) -> None:
    path = tmp_path / "a.wav"
    sf.write(path, sound(7001, channels), rate, subtype=subtype)
    np.testing.assert_array_equal(load(path), reference(path))


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_16", "PCM_24"])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("channels", [1, 2])
def test_flac_at_every_rate_is_bit_exact(tmp_path: Path, subtype: str, rate: int, channels: int) -> None:
    path = tmp_path / "a.flac"
    sf.write(path, sound(20011, channels), rate, subtype=subtype)
    np.testing.assert_array_equal(load(path), reference(path))


@pytest.mark.parametrize("channels", [3, 4, 5, 6, 7, 8])
def test_flac_of_every_channel_count_is_bit_exact(tmp_path: Path, channels: int) -> None:
    path = tmp_path / "a.flac"
    sf.write(path, sound(20011, channels), 44100, subtype="PCM_16")
    np.testing.assert_array_equal(load(path), reference(path))


@pytest.mark.parametrize("samples", [1, 2, 7, 100, 1151, 1152, 1153, 4097, 30011])
@pytest.mark.parametrize("rate", [11025, 44100, 48000, 192000])
def test_length_is_rounded_up_like_librosa(tmp_path: Path, samples: int, rate: int) -> None:
    path = tmp_path / "a.wav"
    sf.write(path, sound(samples, 1), rate, subtype="PCM_16")
    ours, theirs = load(path), reference(path)
    assert len(ours) == len(theirs) == -(-samples * 16000 // rate)
    np.testing.assert_array_equal(ours, theirs)


def tones(rate: int, channels: int) -> np.ndarray:
    time = np.arange(2 * rate) / rate
    pure = np.stack([0.3 * np.sin(2 * np.pi * 440 * (c + 1) * time) for c in range(channels)], axis=1)
    return pure + 0.1 * sound(len(pure), channels)


@pytest.mark.parametrize(
    ("fmt", "subtype", "rate"),
    [
        ("MP3", None, 16000),
        ("MP3", None, 48000),
        ("OGG", "VORBIS", 16000),
        ("OGG", "VORBIS", 44100),
        ("OGG", "OPUS", 48000),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_lossy_codecs_agree_within_1e_6(
    tmp_path: Path, fmt: str, subtype: str | None, rate: int, channels: int
) -> None:
    path = tmp_path / f"a.{fmt.lower()}"
    sf.write(path, tones(rate, channels), rate, format=fmt, subtype=subtype)
    ours, theirs = load(path), reference(path)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_opus_of_a_16_khz_source_is_decoded_at_48_khz_and_resampled(tmp_path: Path) -> None:
    """libsndfile decodes such a file at 16 kHz; FFmpeg, as RFC 7845 advises, at 48 kHz."""
    path = tmp_path / "a.opus"
    sf.write(path, tones(16000, 1), 16000, format="OGG", subtype="OPUS")
    ours, theirs = load(path), reference(path)
    assert ours.shape == theirs.shape
    assert np.sum((ours - theirs) ** 2) < 1e-3 * np.sum(theirs**2)  # 30 dB


@pytest.mark.parametrize("rate", [8000, 44100, 48000, 44101])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_arrays_are_resampled_like_librosa(rate: int, channels: int) -> None:
    samples = sound(9001, channels).T.astype(np.float32)  # [channels, samples]
    mono = np.ascontiguousarray(samples.T).mean(axis=1)
    theirs = librosa.resample(mono, orig_sr=rate, target_sr=16000)
    np.testing.assert_array_equal(load((samples.squeeze(), rate)), theirs)


@pytest.mark.skipif(not DATA.is_dir(), reason="the documented examples' clips (../shared/data/audio) are absent")
@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("1272-128104-0000.flac", 0),
        ("1089_134686_000007_000004.wav", 0),
        ("glass-breaking-151256.mp3", 5e-6),  # two MP3 decoders, a clip over full scale
    ],
)
def test_clips_of_the_documented_examples(name: str, tolerance: float) -> None:
    ours, theirs = load(DATA / name), reference(DATA / name)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)
