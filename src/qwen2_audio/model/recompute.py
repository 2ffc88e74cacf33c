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
    """Base of the layers that can do so: with `gradient_checkpointing` set, `forward` is recomputed.

    Its own hooks (FSDP's among them) run once, as they stand around `forward`; those of its parts run again.
    """

    # Dropout uses the same mask again.
    _gradient_checkpointing_func: Any = staticmethod(partial(checkpoint, use_reentrant=False))

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether a pass with gradients is recomputed. Other passes, and layers without it, take no detour."""
        return "forward" in vars(self)

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, on: bool) -> None:
        if on:
            vars(self)["forward"] = self._recomputed_forward
        else:
            vars(self).pop("forward", None)

    def _recomputed_forward(self, *args: Any, **options: Any) -> Any:
        forward = partial(type(self).forward, self, **options)
        return self._gradient_checkpointing_func(forward, *args) if torch.is_grad_enabled() else forward(*args)


def recomputed_layers(model: nn.Module) -> list[RecomputedLayer]:
    """The layers of `model` that can recompute: the encoder's and the language model's."""
    return [module for module in model.modules() if isinstance(module, RecomputedLayer)]


def recompute_layers(model: nn.Module) -> None:
    """Let every layer recompute; names and parameters do not change."""
    for layer in recomputed_layers(model):
        layer.gradient_checkpointing = True


def is_recomputing(model: nn.Module) -> bool:
    """Whether a layer of `model` would recompute in a pass with gradients."""
    return any(layer.gradient_checkpointing for layer in recomputed_layers(model))
