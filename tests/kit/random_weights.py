"""Weights for tests."""

from __future__ import annotations

import torch


def randomize(model: torch.nn.Module) -> None:
    """Random weights, of a size at which answers depend on every position; the same each time."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(5)
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "embed_positions" not in name:
                parameter.copy_(torch.randn_like(parameter) * 1.6 / parameter.shape[-1] ** 0.5)
