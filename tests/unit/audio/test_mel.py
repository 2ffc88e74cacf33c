"""Golden values, lengths and refusals of the log-mel spectrogram."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen2_audio.audio.mel import log_mel, mel_filters, num_audio_tokens, num_encoder_frames, num_frames
from qwen2_audio.errors import AudioError, ConfigError

# samples, mel frames, encoder frames, audio tokens
LENGTHS = [
    (0, 0, 0, 0),
    (1, 1, 1, 0),
    (160, 1, 1, 0),
    (161, 2, 1, 0),
    (320, 2, 1, 0),
    (321, 3, 2, 1),
    (480, 3, 2, 1),
    (481, 4, 2, 1),
    (640, 4, 2, 1),
    (641, 5, 3, 1),
    (800, 5, 3, 1),
    (16000, 100, 50, 25),
    (64000, 400, 200, 100),
    (64800, 405, 203, 101),
    (479_841, 3000, 1500, 750),
    (480_000, 3000, 1500, 750),
    (9_999_999, 3000, 1500, 750),
]


@pytest.mark.parametrize(("samples", "frames", "encoder_frames", "tokens"), LENGTHS)
def test_lengths(samples: int, frames: int, encoder_frames: int, tokens: int) -> None:
    assert num_frames(samples) == frames
    assert num_encoder_frames(frames) == encoder_frames
    assert num_audio_tokens(frames) == tokens


def test_filter_bank_golden() -> None:
    filters = mel_filters(128)
    assert filters.shape == (201, 128)
    assert filters.dtype == np.float32
    assert np.count_nonzero(filters) == 394
    assert filters.sum(dtype=np.float64) == pytest.approx(3.19098552854, abs=1e-7)
    assert filters.max() == pytest.approx(0.0416817493, abs=1e-9)
    assert filters[1, :2] == pytest.approx([0.01237399, 0.03039256], abs=1e-8)
    assert filters[:, 127].argmax() == 195
    assert filters[195, 127] == pytest.approx(0.00504160, abs=1e-8)


def test_silence_is_exactly_minus_one_and_a_half() -> None:
    assert np.all(log_mel(np.zeros(16000, np.float32)) == -1.5)
    assert np.all(log_mel(np.zeros(0, np.float32), pad_to_window=True) == -1.5)


def test_tone_golden() -> None:
    time = np.arange(16000) / 16000
    mel = log_mel((0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32), pad_to_window=True)
    assert mel.min() == pytest.approx(-0.514646, abs=1e-5)
    assert mel.max() == pytest.approx(1.485354, abs=1e-5)
    assert mel.mean(dtype=np.float64) == pytest.approx(-0.51126859, abs=1e-6)
    assert mel.std(dtype=np.float64) == pytest.approx(0.07346797, abs=1e-6)
    assert mel[0, :3] == pytest.approx([0.9075196, 0.39551204, -0.51464593], abs=1e-5)
    assert mel[17, 50] == pytest.approx(1.337491, abs=1e-5)
    assert mel[127, 99:103] == pytest.approx([-0.51464593, -0.23267841, -0.51464593, -0.51464593], abs=1e-5)


def test_ramp_golden() -> None:
    mel = log_mel(np.linspace(-1, 1, 48000, dtype=np.float32), pad_to_window=True)
    assert mel.min() == pytest.approx(-0.378185, abs=1e-5)
    assert mel.max() == pytest.approx(1.621815, abs=1e-5)
    assert mel.mean(dtype=np.float64) == pytest.approx(-0.37388578, abs=1e-6)
    assert mel[0, :3] == pytest.approx([1.5229559, 1.5216788, 1.5202143], abs=1e-5)


@settings(max_examples=40)
@given(samples=st.one_of(st.integers(0, 4000), st.integers(479_500, 480_000)), seed=st.integers(0, 9))
def test_unpadded_is_the_beginning_of_padded_and_the_rest_is_floor(samples: int, seed: int) -> None:
    waveform = (np.random.default_rng(seed).normal(size=samples) * 0.1).astype(np.float32)
    before = waveform.copy()
    short, padded = log_mel(waveform), log_mel(waveform, pad_to_window=True)
    valid = num_frames(samples)
    assert short.shape == (128, min(2 * num_encoder_frames(valid) + 2, 3000))
    assert padded.shape == (128, 3000)
    np.testing.assert_array_equal(short, padded[:, : short.shape[1]])
    if valid + 2 < 3000:
        assert np.all(padded[:, valid + 2 :] == padded.min())
    assert padded.max() - padded.min() <= 2 + 1e-6  # 80 dB
    np.testing.assert_array_equal(waveform, before)


def test_float64_is_accepted_and_the_result_is_writable_and_contiguous() -> None:
    waveform = np.random.default_rng(0).normal(size=5000) * 0.1
    mel = log_mel(waveform)
    np.testing.assert_array_equal(mel, log_mel(waveform.astype(np.float32)))
    assert mel.flags.c_contiguous
    assert mel.flags.writeable


@pytest.mark.parametrize(
    ("waveform", "text"),
    [
        (np.zeros(480_001, np.float32), r"30\.000 s of sound; expected at most 30 s .* Cut it into windows"),
        (np.zeros(720_000, np.float32), r"Found 45\.000 s"),
        (np.zeros((2, 100), np.float32), r"shape \(2, 100\) .* expected float \[samples\]"),
        (np.zeros(100, np.int16), r"dtype int16; expected float"),
        (np.zeros(100, np.complex64), r"dtype complex64; expected float"),
        (np.array([0, np.nan, 0], np.float32), "holds NaN or infinite samples; expected finite"),
        (np.array([0, np.inf, 0], np.float32), "holds NaN or infinite samples; expected finite"),
        (np.array([0, 1e18, 0], np.float32), "far beyond full scale; expected finite samples between -1 and 1"),
    ],
)
def test_refusals(waveform: np.ndarray, text: str) -> None:
    with pytest.raises(AudioError, match=text):
        log_mel(waveform)


def test_no_mel_bands_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_mel_bins is 0; expected at least 1"):
        log_mel(np.zeros(100, np.float32), num_mel_bins=0)


def test_cached_tables_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        mel_filters(128)[0, 0] = 1
