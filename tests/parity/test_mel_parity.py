"""log_mel against transformers' WhisperFeatureExtractor (torch path) and against the same formula in float64.

The reference's float32 FFT and cosine put single quiet values of clean tones, chirps and speech up to 3.5e-5 off the
float64 result; ours is within 1e-6 of it. So: 1e-6 from float64 everywhere; from the reference 1e-5 in all but a few
values, and never more than 5e-5.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qwen2_audio.audio import load, log_mel, mel

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "audio"
LENGTHS = [0, 1, 2, 159, 160, 161, 199, 200, 201, 320, 321, 480, 641, 16000, 64800, 64801]
LONG = [479_799, 479_800, 479_840, 479_841, 479_959, 479_999, 480_000]


@pytest.fixture(scope="module")
def extractor():
    return transformers.WhisperFeatureExtractor(feature_size=128)


def reference(extractor, waveform: np.ndarray) -> tuple[np.ndarray, int]:
    out = extractor(waveform, sampling_rate=16000, return_tensors="np", return_attention_mask=True)
    return out.input_features[0], int(out.attention_mask.sum())


def in_float64(waveform: np.ndarray) -> np.ndarray:
    """The formula of the feature extractor over the whole padded window, float32 window, everything else float64."""
    padded = np.pad(np.pad(waveform, (0, 480_000 - len(waveform))), 200, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, 400)[::160][:-1]
    power = np.abs(np.fft.rfft((frames * mel.window()).astype(np.float64))) ** 2
    out = np.log10(np.maximum(power @ mel.mel_filters(128).astype(np.float64), 1e-10)).T
    return (np.maximum(out, out.max() - 8) + 4) / 4


def assert_same(extractor, waveform: np.ndarray) -> None:
    theirs, valid = reference(extractor, waveform)
    assert mel.num_frames(len(waveform)) == valid
    whole = log_mel(waveform, pad_to_window=True)
    assert whole.dtype == np.float32
    assert whole.shape == theirs.shape
    assert np.abs(whole - in_float64(waveform)).max() < 1e-6
    off = np.abs(whole - theirs)
    assert off.max() < 5e-5
    assert np.sum(off > 1e-5) <= 128 + 0.0005 * off.size
    short = log_mel(waveform)
    np.testing.assert_array_equal(short, whole[:, : short.shape[1]])


@pytest.mark.parametrize("samples", LENGTHS + LONG)
def test_noise_of_every_critical_length(extractor, samples: int) -> None:
    assert_same(extractor, (np.random.default_rng(samples).normal(size=samples) * 0.1).astype(np.float32))


@pytest.mark.parametrize("samples", [159, 160, 161, 199, 200, 201, 16000, 479_999, 480_000])
def test_a_click_on_the_last_sample_reaches_the_frames_after_it(extractor, samples: int) -> None:
    click = np.zeros(samples, np.float32)
    click[-1] = 1
    assert_same(extractor, click)


def make(name: str) -> np.ndarray:
    time = np.arange(48000) / 16000
    noise = np.random.default_rng(1).normal(size=48000)
    sounds = {
        "silence": np.zeros(48000),
        "tone": 0.5 * np.sin(2 * np.pi * 440 * time),
        "ramp": np.linspace(-1, 1, 48000),
        "chirp": np.sin(2 * np.pi * (50 * time + 1200 * time * time)),
        "loud": noise * 30,
        "faint": noise * 1e-6,
        "burst then silence": noise * 0.1 * (time < 0.5),
        "constant": np.ones(48000),
    }
    return sounds[name].astype(np.float32)


@pytest.mark.parametrize(
    "name", ["silence", "tone", "ramp", "chirp", "loud", "faint", "burst then silence", "constant"]
)
def test_kinds_of_sound(extractor, name: str) -> None:
    assert_same(extractor, make(name))


def test_filter_bank_is_the_reference_one(extractor) -> None:
    np.testing.assert_array_equal(mel.mel_filters(128), extractor.mel_filters.astype(np.float32))


def test_80_bands(extractor) -> None:
    waveform = make("burst then silence")
    theirs = transformers.WhisperFeatureExtractor(feature_size=80)(waveform, sampling_rate=16000, return_tensors="np")
    ours = log_mel(waveform, num_mel_bins=80, pad_to_window=True)
    np.testing.assert_allclose(ours, theirs.input_features[0], rtol=0, atol=1e-5)


def test_our_window_is_the_reference_one_to_the_last_bit_but_one() -> None:
    np.testing.assert_allclose(mel.window(), torch.hann_window(400).numpy(), rtol=0, atol=6e-8)


@pytest.mark.skipif(not DATA.is_dir(), reason="the documented examples' clips (../shared/data/audio) are absent")
@pytest.mark.parametrize(
    "name", ["1272-128104-0000.flac", "1089_134686_000007_000004.wav", "glass-breaking-151256.mp3"]
)
def test_clips_of_the_documented_examples(extractor, name: str) -> None:
    assert_same(extractor, load(DATA / name))
