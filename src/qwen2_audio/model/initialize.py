"""Initialize parameters: with random values, or without storage when a checkpoint will provide them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..checkpoint.config import Qwen2AudioConfig
from .language_model import RMSNorm

_DRAWS = {"normal_", "uniform_", "kaiming_uniform_"}


class _NoDraws(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") in _DRAWS:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def without_weights() -> Iterator[None]:
    """Inside this context, models are built on the meta device: parameters have names and shapes, but no storage.

    Random initialization is skipped: on the meta device it computes nothing, but makes torch import modules for 2 s.
    """
    with torch.device("meta"), _NoDraws():
        yield


@torch.no_grad()
def initialize(model: nn.Module, config: Qwen2AudioConfig) -> None:
    """Draw weights from N(0, initializer_range); set biases to 0 and norm weights to 1. Skips the meta device.

    `embed_positions` is drawn like any embedding, as in the reference; a checkpoint contains the sinusoids.
    """
    for name, module in model.named_modules():
        part = config.audio_config if name.startswith("audio_tower") else config.text_config
        weight = getattr(module, "weight", None)
        if weight is None or weight.is_meta:
            continue
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Embedding)):
            weight.normal_(0.0, part.initializer_range)
            bias = getattr(module, "bias", None)
            if bias is not None:
                bias.zero_()
        elif isinstance(module, (nn.LayerNorm, RMSNorm)):
            weight.fill_(1.0)
