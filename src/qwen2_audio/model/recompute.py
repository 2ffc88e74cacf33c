"""Gradient checkpointing: a layer computes its activations again in the backward pass instead of keeping them.

Loss and gradients are the same and a step takes a third longer; of each layer only its input stays in memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class RecomputedLayer(nn.Module):
    """Base of the layers that can do so. A call with gradients and `gradient_checkpointing` set recomputes."""

    gradient_checkpointing = False

    def __call__(self, *args: Any, **options: Any) -> Any:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            # Hooks run again too, as in the reference. Dropout uses the same mask again.
            return checkpoint(super().__call__, *args, use_reentrant=False, **options)
        return super().__call__(*args, **options)


def recomputed_layers(model: nn.Module) -> list[RecomputedLayer]:
    """The layers of `model` that can recompute: the encoder's and the language model's."""
    return [module for module in model.modules() if isinstance(module, RecomputedLayer)]


def is_recomputing(model: nn.Module) -> bool:
    """Whether a layer of `model` would recompute in a pass with gradients."""
    return any(layer.gradient_checkpointing for layer in recomputed_layers(model))
