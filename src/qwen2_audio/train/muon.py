"""Muon: a matrix moves by its momentum, all directions made equally strong; everything else moves as AdamW moves it.

K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024. The step of a matrix is scaled to the
size that AdamW's has (RMS 0.2 times the rate; J. Liu et al., "Muon is scalable for LLM training", 2025), so that one
rate serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from .adamw8bit import adam
from .precision import fast_bfloat16

MOMENTUM = 0.95
RMS = 0.2  # of AdamW's steps, as a share of the rate
STEPS, COEFFICIENTS = 5, (3.4445, -4.7750, 2.0315)  # of Newton and Schulz's iteration, tuned to be quick


class Muon(torch.optim.Optimizer):
    """Over parameter groups whose "muon" says how they move; each parameter is whole on every process."""

    def __init__(
        self,
        matrices: Iterable[torch.Tensor],
        others: Iterable[torch.Tensor],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        """`matrices`: [m, n] of hidden layers. `others`: vectors, convolutions, embeddings, heads; only those of two
        dimensions or more decay."""
        rest = list(others)
        groups = [
            {"params": list(matrices), "muon": True, "weight_decay": weight_decay},
            {"params": [p for p in rest if p.dim() > 1], "muon": False, "weight_decay": weight_decay},
            {"params": [p for p in rest if p.dim() < 2], "muon": False, "weight_decay": 0.0},
        ]
        super().__init__([group for group in groups if group["params"]], {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_((self._turned if group["muon"] else self._adam)(parameter, group))

    def _turned(self, parameter: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
        gradient, state = parameter.grad.float(), self.state[parameter]  # type: ignore[union-attr]
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        ahead = gradient.lerp(state["momentum"], MOMENTUM)  # Nesterov's
        scale: float = -group["lr"] * RMS * max(parameter.shape) ** 0.5
        return orthogonal(ahead).mul_(scale).to(parameter.dtype)

    def _adam(self, parameter: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
        gradient, state = parameter.grad.float(), self.state[parameter]  # type: ignore[union-attr]
        if not state:
            state |= {
                "step": torch.zeros(()),
                "first": torch.zeros_like(gradient),
                "second": torch.zeros_like(gradient),
            }
        state["step"] += 1
        return adam(gradient, state["first"], state["second"], int(state["step"]), group).to(parameter.dtype)


def orthogonal(x: torch.Tensor) -> torch.Tensor:
    """float32 [m, n] -> float32 [m, n] with the same singular vectors and all singular values near 1 (0.7 to 1.2)."""
    a, b, c = COEFFICIENTS
    wide = x.T if x.shape[0] > x.shape[1] else x
    y = wide / (wide.norm() + 1e-7)
    if x.is_cuda or fast_bfloat16():
        y = y.bfloat16()
    for _ in range(STEPS):
        square = y @ y.T
        y = a * y + (b * square + c * square @ square) @ y
    result: torch.Tensor = (y.T if wide is not x else y).float()
    return result
