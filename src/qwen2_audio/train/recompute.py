"""Gradient checkpointing for a run: see `model/recompute.py`."""

from __future__ import annotations

from torch import nn

from ..model.recompute import RecomputedLayer, recomputed_layers


def layers(model: nn.Module) -> list[RecomputedLayer]:
    """The encoder's layers and the language model's."""
    return recomputed_layers(model)


def recompute_layers(model: nn.Module) -> None:
    """Let every layer recompute; names and parameters do not change."""
    for layer in layers(model):
        layer.gradient_checkpointing = True
