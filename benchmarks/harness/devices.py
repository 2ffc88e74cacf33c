"""The device a benchmark runs on: whether it is there, a random model made on it, its clock and its memory."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from qwen2_audio.bench.machine import peak_gb
from qwen2_audio.errors import ConfigError

from .worker_loop import Timer, settle

DEVICES = ("cuda", "cpu")


def require_device(device: str) -> None:
    """Raise ConfigError where `device` is unknown or not there."""
    if device not in DEVICES:
        raise ConfigError(f"device is {device!r}; expected one of {', '.join(DEVICES)}.")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"device is 'cuda', and torch {torch.__version__} sees no NVIDIA GPU; run this on a machine with one and "
            "with a CUDA build of torch, or use --device cpu."
        )


def random_model(make: Callable[[], Any], device: torch.device, dtype: torch.dtype) -> Any:
    """The model that `make` builds, its weights drawn on `device` in `dtype`, in eval mode without gradients."""
    default_dtype = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            model = make().eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(default_dtype)
    gc.collect()
    gc.freeze()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    return model


@contextmanager
def device_timed(device: torch.device) -> Iterator[Timer]:
    """Seconds of the block, after `settle`, until the device is done with it."""
    settle()
    timer = Timer()
    _wait_for(device)
    start = time.perf_counter()
    yield timer
    _wait_for(device)
    timer.seconds = time.perf_counter() - start


def device_peak_gb(device: torch.device) -> float | None:
    """GB that tensors took at most on a GPU, or the process on a CPU; None where the system does not tell."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else peak_gb()


def device_name(device: torch.device) -> str:
    """The GPU's name, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
