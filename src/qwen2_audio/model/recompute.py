"""Gradient checkpointing: a layer computes its activations again in the backward pass instead of keeping them.

Loss and gradients are the same and a step takes a third longer; of each layer only its input stays in memory.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class RecomputedLayer(nn.Module):
    """Base of the layers that can do so: with gradients, and `gradient_checkpointing` set, `forward` is recomputed.

    The layer's own hooks (FSDP's among them) run once, as they stand around `forward`; those of its parts run again.
    """

    _gradient_checkpointing_func: Any = partial(checkpoint, use_reentrant=False)  # dropout uses the same mask again

    @property
    def gradient_checkpointing(self) -> bool:
        return "forward" in vars(self)

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, value: bool) -> None:
        # A layer that does not recompute is called without a detour. A copy's method is bound to the copy.
        vars(self).pop("forward", None)
        if value:
            vars(self)["forward"] = self._recomputed_forward

    def _recomputed_forward(self, *args: Any, **options: Any) -> Any:
        forward = partial(type(self).forward, self, **options)
        return self._gradient_checkpointing_func(forward, *args) if torch.is_grad_enabled() else forward(*args)


def recomputed_layers(model: nn.Module) -> list[RecomputedLayer]:
    """The layers of `model` that can recompute: the encoder's and the language model's."""
    return [module for module in model.modules() if isinstance(module, RecomputedLayer)]


def is_recomputing(model: nn.Module) -> bool:
    """Whether a layer of `model` would recompute in a pass with gradients."""
    return any(layer.gradient_checkpointing for layer in recomputed_layers(model))
