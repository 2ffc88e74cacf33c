"""Layers that compute with quantised weights, in place of the model's Linear and Embedding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import ConfigError
from ..native import ops
from ..native.library import has_memory
from .packing import PANEL, Format, dequantize
from .search import Quantized

SLICE = 2**22  # weights that are dequantised at a time when no native kernel runs: 16 MB


class QuantizedLayer(nn.Module):
    """Base of the two layers. Its tensors keep their dtype when the model is cast to another."""

    weight_codes: torch.Tensor
    weight_scales: torch.Tensor | None
    form: Format

    @property
    def bits(self) -> int:
        return self.form.bits

    @property
    def group(self) -> int:
        """Inputs that share a scale; 0 for 16 bits, which has no scales."""
        return self.form.group

    def set_weight(self, weight: Quantized) -> None:
        """Use the codes and scales of `weight`, without a copy."""
        self.weight_codes, self.weight_scales = weight.codes, weight.scales

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        for name, tensor in self._buffers.items():
            if tensor is not None:
                moved = fn(tensor)
                self._buffers[name] = moved if moved.dtype == tensor.dtype else tensor.to(moved.device)
        return self

    def extra_repr(self) -> str:
        kind = {4: "int4", 8: "int8", 16: "float16"}[self.bits]
        return f"{kind}, groups of {self.group}" if self.group else kind


class QuantizedLinear(QuantizedLayer):
    """y = W x + b with W in 4, 8 or 16 bits in the layout of `packing`; b is float32 or None.

    A float32 input on the CPU uses the native kernels if they are available; unless W has 16 bits, they quantise the
    input to 8 bits. Any other input is multiplied by the dequantised weights, slice by slice, and so is one with a
    gradient. Gradients flow to the input, but not to W and b.
    """

    bias: torch.Tensor | None
    dequantizes: bool = False  # use the dequantised weights without a gradient too; set it before the first pass

    def __init__(
        self, in_features: int, out_features: int, form: Format, *, bias: bool = True, device: Any = None
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.form = in_features, out_features, form
        shape, dtype = form.codes(out_features, in_features)
        scales = form.scales(out_features, in_features)
        self.register_buffer("weight_codes", torch.empty(shape, dtype=dtype, device=device))
        empty = None if scales is None else torch.empty(scales, dtype=torch.float16, device=device)
        self.register_buffer("weight_scales", empty)
        self.register_buffer("bias", torch.empty(out_features, device=device) if bias else None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., K] -> [..., N] in x's dtype."""
        tracked = torch.is_grad_enabled() and x.requires_grad
        readable = x.dtype == torch.float32 and x.device.type == "cpu" and has_memory(x)
        if readable and not tracked and not self.dequantizes:
            native = native_ops()
            if native is not None:
                return native.linear(  # type: ignore[no-any-return]
                    x,
                    self.weight_codes,
                    self.weight_scales,
                    self.bias,
                    in_features=self.in_features,
                    out_features=self.out_features,
                    bits=self.bits,
                    group=self.group,
                )
        if tracked:
            out: torch.Tensor = _Product.apply(x, self)
        else:
            out = torch.cat([F.linear(x, weight.to(x.dtype)) for weight in self.slices()], dim=-1)
        return out if self.bias is None else out + self.bias.to(out.dtype)

    def slices(self) -> Iterator[torch.Tensor]:
        """The weight as float32 [n, K], n outputs at a time."""
        panels = max(1, SLICE // (PANEL * self.in_features))
        for start in range(0, self.weight_codes.shape[0], panels):
            part = slice(start, start + panels)
            scales = None if self.weight_scales is None else self.weight_scales[part]
            rows = min(self.out_features - start * PANEL, panels * PANEL)
            yield dequantize(self.weight_codes[part], scales, self.bits, self.group)[:rows, : self.in_features]

    def dequantize(self) -> torch.Tensor:
        """The weight as float32 [N, K]."""
        return torch.cat(list(self.slices()))

    def extra_repr(self) -> str:
        bias = self.bias is not None
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={bias}, {super().extra_repr()}"


class _Product(torch.autograd.Function):
    """W x for an x that requires a gradient: the backward pass dequantises W again instead of keeping it."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: QuantizedLinear) -> torch.Tensor:
        ctx.layer = layer
        return torch.cat([F.linear(x, weight.to(x.dtype)) for weight in layer.slices()], dim=-1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (gradient,) = gradients
        start, total = 0, gradient.new_zeros(*gradient.shape[:-1], ctx.layer.in_features)
        for weight in ctx.layer.slices():
            total += gradient[..., start : start + len(weight)] @ weight.to(gradient.dtype)
            start += len(weight)
        return total, None


class QuantizedEmbedding(QuantizedLayer):
    """An embedding in 8 bits: `weight_codes` int8 [V, H], `weight_scales` float16 [V, ceil(H / group)]."""

    weight_scales: torch.Tensor

    def __init__(self, num_embeddings: int, embedding_dim: int, form: Format, *, device: Any = None) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.form = num_embeddings, embedding_dim, form
        codes = torch.empty((num_embeddings, embedding_dim), dtype=torch.int8, device=device)
        scales = (num_embeddings, form.groups(embedding_dim))
        self.register_buffer("weight_codes", codes)
        self.register_buffer("weight_scales", torch.empty(scales, dtype=torch.float16, device=device))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """int64 [...] -> float32 [..., H]."""
        scales = self.weight_scales[ids].float().repeat_interleave(self.group, dim=-1)[..., : self.embedding_dim]
        return self.weight_codes[ids].float() * scales

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, {super().extra_repr()}"


def refuse_cast(fn: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Raise ConfigError if `fn`, which a quantised model is about to apply to its tensors, casts them."""
    dtype = fn(torch.empty(0)).dtype
    if dtype != torch.float32:
        raise ConfigError(
            f"The model is quantised and computes in float32, so it cannot become {str(dtype).removeprefix('torch.')}; "
            "leave the cast out, or load the plain checkpoint in that dtype."
        )


def native_ops() -> Any:
    """The native kernels, or None if this machine has none."""
    return ops if ops.available() else None
