"""Gradient checkpointing: the activations inside a layer are computed again in the backward pass instead of being kept.

Loss and gradients are the same and a step takes a third longer; of each layer only its input stays in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def layers(model: nn.Module) -> list[nn.Module]:
    """The encoder's layers and the language model's."""
    return [
        *model.get_submodule("audio_tower.layers").children(),
        *model.get_submodule("language_model.model.layers").children(),
    ]


def recompute_layers(model: nn.Module) -> None:
    """Replace the forward method of every layer by one that recomputes; names and parameters do not change."""
    for layer in layers(model):
        setattr(layer, "forward", _recomputing(layer.forward))  # noqa: B010 - mypy knows no other way to replace a method


def _recomputing(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **options)
        return checkpoint(forward, *args, use_reentrant=False, **options)  # dropout uses the same mask again

    return run
