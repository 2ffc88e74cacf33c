"""Linear layers of a float32 model, few rows at a time: the steps of several answers at once, guesses, short prompts.

A library's product for so few rows takes longer than reading the weights does, as it first copies them into an order of
its own. The kernel reads them where they lie, once, and a row's result does not depend on the other rows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from . import fused, library

MOST_ROWS = 32  # beyond, a library's product does as well


class DenseLinear(nn.Linear):
    """`nn.Linear` on the kernel where it may: float32 on the CPU, no gradients, no autocast, 2 rows to `MOST_ROWS`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self._takes(x):
            return F.linear(x, self.weight, self.bias)
        found = library.load().library
        assert found is not None
        library.follow_torch(found)
        x, bias = x.contiguous(), None if self.bias is None else self.bias.data_ptr()
        out = x.new_empty(*x.shape[:-1], self.out_features)
        rows = x.numel() // self.in_features
        found.qwa_dense(
            self.weight.data_ptr(), bias, self.in_features, self.out_features, x.data_ptr(), rows, out.data_ptr()
        )
        return out

    def fits(self) -> bool:
        """Whether the kernel reads its weight."""
        weight = self.weight
        return weight.dtype == torch.float32 and weight.device.type == "cpu" and weight.is_contiguous()

    def _takes(self, x: torch.Tensor) -> bool:
        weight = self.weight
        return (
            type(x) is torch.Tensor  # not one without values
            and not (torch.compiler.is_compiling() or torch.jit.is_tracing())  # type: ignore[attr-defined]
            and self.in_features < x.numel() <= MOST_ROWS * self.in_features
            and x.shape[-1] == self.in_features
            and x.dtype == torch.float32
            and x.device.type == "cpu"
            and self.fits()
            and not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
            and not torch.is_autocast_enabled("cpu")
            and worthwhile()
        )


def worthwhile() -> bool:
    """There are kernels, and others than the portable ones, which a library beats."""
    return fused.kernels() is not None and library.load().isa != "portable"


def adopt(model: nn.Module) -> None:
    """Make every plain `nn.Linear` within `model` a `DenseLinear`; weights, names and hooks stay."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = DenseLinear
