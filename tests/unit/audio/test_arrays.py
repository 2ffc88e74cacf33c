"""Arrays and tensors as sources: what is scaled, mixed and resampled, and what is refused in a sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qwen2_audio.audio import load
from qwen2_audio.errors import AudioError

WAVE = (np.random.default_rng(0).normal(size=(1, 5000)) * 0.1).astype(np.float32)


def noise(samples: int, channels: int) -> np.ndarray:
    return (np.random.default_rng(0).normal(size=(channels, samples)) * 0.1).astype(np.float32)


def refused(source: Any, text: str) -> None:
    with pytest.raises(AudioError, match=text) as caught:
        load(source)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_arrays_are_taken_as_they_are(dtype: type) -> None:
    given_array = WAVE[0].astype(dtype)
    np.testing.assert_array_equal(load(given_array), given_array.astype(np.float32))
    assert not np.shares_memory(load(given_array), given_array)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([-32768, 0, 16384], np.int16), [-1, 0, 0.5]),
        (np.array([-(2**31), 0, 2**30], np.int32), [-1, 0, 0.5]),
        (np.array([0, 128, 192], np.uint8), [-1, 0, 0.5]),
        ([0.25, -0.5, 1.0], [0.25, -0.5, 1.0]),
    ],
)
def test_integers_are_scaled(array: Any, expected: list[float]) -> None:
    np.testing.assert_array_equal(load(array), expected)


def test_both_orders_of_two_axes() -> None:
    both = noise(3000, 2)
    np.testing.assert_array_equal(load(both), load(both.T))
    np.testing.assert_allclose(load(both), both.mean(axis=0), atol=1e-8)
    np.testing.assert_array_equal(load(both[:1]), both[0])


def test_rates_of_arrays() -> None:
    expected = load((WAVE[0], 48000))
    assert len(expected) == 1667
    np.testing.assert_array_equal(load(WAVE[0], sampling_rate=48000), expected)
    np.testing.assert_array_equal(load((WAVE[0], np.int64(48000)), sampling_rate=48000), expected)
    np.testing.assert_array_equal(load((WAVE[0], 48000.0)), expected)


def test_torch_tensors() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.tensor(WAVE, requires_grad=True)
    np.testing.assert_array_equal(load(tensor), WAVE[0])
    np.testing.assert_array_equal(load(tensor.bfloat16()), tensor.detach().bfloat16().float().numpy()[0])


ARRAYS: list[tuple[Any, str]] = [
    (np.zeros(0, np.float32), "holds no samples; expected at least one"),
    (np.zeros((2, 0), np.float32), "holds no samples"),
    ([], "holds no samples"),
    (np.array([0, np.nan]), "holds NaN or infinite samples; expected finite ones between -1 and 1"),
    (np.array([0, 1e300]), "holds NaN or infinite samples"),
    (np.zeros(9, np.complex64), "expected floats between -1 and 1, or int16, int32, uint8. Give the samples, not a sp"),
    (np.zeros(9, np.int64), "dtype int64 is not of samples .* Its full scale is unknown: divide it to -1..1"),
    (np.zeros(9, np.uint16), "Its full scale is unknown"),
    (np.zeros(9, bool), "expected floats between -1 and 1"),
    ([1, 2, 3], "dtype int64 .* full scale is unknown"),
    (["a.wav", "b.wav"], "is not of samples this package knows"),
    ([[0.0], [0.0, 1.0]], "rows of different lengths"),
    (np.zeros((2, 2, 9)), r"shape \(2, 2, 9\) .* has 3 dimensions; expected \[samples\] or \[channels, samples\]"),
    (np.float32(1), "has 0 dimensions"),
    (np.zeros((20, 30)), "expected exactly one axis of at most 8, the channels"),
    (np.zeros((2, 3)), "expected exactly one axis of at most 8"),
    (np.ones(9) * 20000, r"reaches 20,000; expected samples between -1 and 1. Divide them by their full scale"),
    ((44100, WAVE[0]), r"Found \(rate, array\); expected \(array, rate\)"),
    ((WAVE[0],), r"Found a tuple of 1; expected \(array, rate\)"),
    ((WAVE[0], 0), "sampling rate of 0 Hz; expected 4,000 to 384,000 Hz"),
    ((WAVE[0], -16000), "sampling rate of -16,000 Hz"),
    ((WAVE[0], 1e9), r"sampling rate of 1e\+09 Hz"),
    ((WAVE[0], "fast"), "The sampling rate is 'fast'; expected a number in Hz"),
    ((WAVE[0], None), "The sampling rate is None; expected a number in Hz"),
    ((WAVE[0], float("nan")), "The sampling rate is nan"),
    ((WAVE[0], True), "The sampling rate is True"),
]


@pytest.mark.parametrize(("source", "text"), ARRAYS, ids=range(len(ARRAYS)))
def test_arrays_that_are_no_sound(source: Any, text: str) -> None:
    refused(source, text)


def test_nine_channels() -> None:
    refused(np.zeros((9, 100)), "expected exactly one axis of at most 8")
