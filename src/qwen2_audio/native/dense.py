"""Linear layers of a float32 model for few rows: decode steps of several answers, drafts, short prompts.

For so few rows a BLAS library's product takes longer than reading the weights does, since it first copies them into its
own layout. The kernel reads them once, where they lie, and a row's result does not depend on the other rows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from . import fused, library

MOST_ROWS = 32  # for more rows a library's product is as fast


class DenseLinear(nn.Linear):
    """`nn.Linear` on the kernel for 2 to `MOST_ROWS` rows of float32 on the CPU, without gradients or autocast."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self._takes(x):
            return F.linear(x, self.weight, self.bias)
        kernels = library.load().library
        assert kernels is not None
        library.follow_torch(kernels)
        x, bias = x.contiguous(), None if self.bias is None else self.bias.data_ptr()
        out = x.new_empty(*x.shape[:-1], self.out_features)
        rows = x.numel() // self.in_features
        kernels.qwa_dense(
            self.weight.data_ptr(), bias, self.in_features, self.out_features, x.data_ptr(), rows, out.data_ptr()
        )
        return out

    def fits(self) -> bool:
        """Whether the kernel can read its weight and its bias."""
        weight, bias = self.weight, self.bias
        return (
            weight.dtype == torch.float32
            and weight.is_cpu
            and weight.is_contiguous()
            and weight.numel() == self.in_features * self.out_features
            and (bias is None or (bias.dtype == torch.float32 and bias.is_cpu and bias.numel() == self.out_features))
        )

    def _takes(self, x: torch.Tensor) -> bool:
        weight = self.weight
        return (
            library.has_memory(x)
            and self.in_features < x.numel() <= MOST_ROWS * self.in_features
            and x.shape[-1] == self.in_features
            and x.dtype == torch.float32
            and x.device.type == "cpu"
            and self.fits()
            and not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
            and not torch.is_autocast_enabled("cpu")
            and worthwhile()
        )


def product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x [..., in] times the transpose of `weight` [out, in], without gradients: [..., out].

    On the kernel, some rows at a time, a row's result depends on no other row, in any bit. For other dtypes and
    devices, and where there are no kernels, it is a library's product.
    """
    rows = x.numel() // weight.shape[1]
    plain = x.dtype == weight.dtype == torch.float32 and x.is_cpu and weight.is_cpu and weight.is_contiguous()
    if not (plain and rows and library.has_memory(x) and worthwhile()):
        return F.linear(x, weight)
    kernels = library.load().library
    assert kernels is not None
    library.follow_torch(kernels)
    out_features, in_features = weight.shape
    flat, out = x.reshape(rows, in_features).contiguous(), x.new_empty(rows, out_features)
    for at in range(0, rows, MOST_ROWS):
        part, result = flat[at : at + MOST_ROWS], out[at : at + MOST_ROWS]
        sizes = (in_features, out_features, part.data_ptr(), len(part), result.data_ptr())
        kernels.qwa_dense(weight.data_ptr(), None, *sizes)
    return out.view(*x.shape[:-1], out_features)


def worthwhile() -> bool:
    """Whether there are kernels that are faster than a library's product; the portable ones are not."""
    return fused.kernels() is not None and library.load().isa != "portable"


def adopt(model: nn.Module) -> None:
    """Turn every plain `nn.Linear` of `model` into a `DenseLinear`. Weights, names and hooks stay."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = DenseLinear
