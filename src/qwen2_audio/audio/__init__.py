"""Clips from any source to float32 samples at 16 kHz, and samples to log-mel spectrograms. numpy only."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .io import load as load
    from .limits import Limits as Limits
    from .mel import SAMPLE_RATE as SAMPLE_RATE
    from .mel import log_mel as log_mel

_WHERE = {"load": "io", "log_mel": "mel", "Limits": "limits", "SAMPLE_RATE": "mel"}
__all__ = ["SAMPLE_RATE", "Limits", "load", "log_mel"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_WHERE[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
