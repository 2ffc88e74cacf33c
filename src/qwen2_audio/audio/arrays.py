"""Arrays and tensors of samples to float32 mono at 16 kHz."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np

from ..errors import AudioError
from .limits import Limits
from .resample import StreamResampler, tracks_of

_INTEGER_SCALE = {"uint8": (128, 2**7), "int16": (0, 2**15), "int32": (0, 2**31)}  # dtype: (zero, full scale)
_LOUDEST = 1000.0  # full scale is 1; samples above this were not divided by their integer full scale


def from_array(source: Any, rate: Any, limits: Limits) -> np.ndarray:
    """As `channels_from_array`, the mean over channels: float32 mono [S] at 16 kHz."""
    (waveform,) = channels_from_array(source, rate, limits, split=False)
    return waveform


def channels_from_array(source: Any, rate: Any, limits: Limits, *, split: bool) -> list[np.ndarray]:
    """Samples at `rate` Hz to float32 [S] at 16 kHz: of each channel with `split`, else one, their mean.

    A 1-D array is mono. In a 2-D array the axis of at most `limits.max_channels` is the channels. Floats have full
    scale 1; uint8, int16 and int32 are divided by 2**7 (around 128), 2**15 and 2**31.
    Raises AudioError for any other array, NaN or infinite samples, and samples above 1000.
    """
    array = _as_numpy(source)
    name = f"The array of shape {array.shape} and dtype {array.dtype}"
    if array.size == 0:
        raise AudioError(f"{name} holds no samples; expected at least one.")
    rate = _checked_rate(rate)
    channels = _channels_last(array, name, limits)  # [S, channels]
    limits.check_form(channels.shape[1], rate, name)
    limits.check_seconds(len(channels) / rate, name)
    samples = _scaled(channels, name)
    if not np.isfinite(samples).all():
        raise AudioError(f"{name} holds NaN or infinite samples; expected finite ones between -1 and 1.")
    check_peak(samples, name)
    waveforms = []
    for mono in tracks_of(samples, split=split):
        resampler = StreamResampler()
        body = resampler.push(mono, rate)
        tail = resampler.finish()
        waveforms.append(np.concatenate([body, tail]) if len(tail) else body)
    return waveforms


def check_peak(samples: np.ndarray, name: str) -> None:
    """Raises AudioError for samples that cannot have a full scale of 1; `name` is what the message calls them."""
    peak = float(np.abs(samples).max())
    if peak > _LOUDEST:
        raise AudioError(
            f"{name} reaches {peak:,.0f}; expected samples between -1 and 1. "
            "Divide them by their full scale (32768 for 16 bit)."
        )


def _checked_rate(rate: Any) -> int | float:
    """A sampling rate in Hz as a Python number. Raises AudioError unless it is a finite number."""
    if isinstance(rate, (bool, np.bool_)) or not isinstance(rate, (Real, np.number)) or not np.isfinite(float(rate)):
        raise AudioError(f"The sampling rate is {rate!r}; expected a number in Hz, such as 16000.")
    hertz = float(rate)
    return int(hertz) if hertz.is_integer() else hertz


def _as_numpy(source: Any) -> np.ndarray:
    if hasattr(source, "detach"):  # a torch tensor, which this layer does not import
        tensor = source.detach().cpu()
        source = tensor.float().numpy() if str(tensor.dtype) == "torch.bfloat16" else tensor.numpy()
    try:
        return np.asarray(source)
    except (TypeError, ValueError) as error:
        raise AudioError("The list of samples has rows of different lengths; expected numbers of one sound.") from error


def _channels_last(array: np.ndarray, name: str, limits: Limits) -> np.ndarray:
    if array.ndim == 1:
        return array[:, None]
    if array.ndim != 2:
        raise AudioError(f"{name} has {array.ndim} dimensions; expected [samples] or [channels, samples].")
    narrow = [length <= limits.max_channels for length in array.shape]
    if narrow[0] == narrow[1]:
        raise AudioError(
            f"{name} could not be told apart into channels and samples; expected exactly one axis of "
            f"at most {limits.max_channels}, the channels. Give one clip at a time, mono as [samples]."
        )
    return array.T if narrow[0] else array


def _scaled(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # float64 beyond float32's range becomes inf, which the caller refuses
            return array.astype(np.float32)
    if array.dtype.name in _INTEGER_SCALE:  # the name says nothing of the byte order
        zero, full_scale = _INTEGER_SCALE[array.dtype.name]
        return (array.astype(np.float32) - np.float32(zero)) * np.float32(1 / full_scale)
    hint = {"i": " Its full scale is unknown: divide it to -1..1 yourself.", "c": " Give the samples, not a spectrum."}
    raise AudioError(
        f"{name} is not of samples this package knows; expected floats between -1 and 1, or int16, int32, uint8."
        + hint.get("i" if array.dtype.kind in "iu" else array.dtype.kind, "")
    )
