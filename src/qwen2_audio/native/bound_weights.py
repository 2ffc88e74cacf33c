"""The weights of layers as the kernels see them, and whether they still are the layers'."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from . import fused, ops

DECODER_LINEARS = (
    *(f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj")),
    *(f"mlp.{name}" for name in ("gate_proj", "up_proj", "down_proj")),
)


def quantized(module: nn.Module) -> bool:
    """Whether the kernels read this Linear's weights: known by their names, as who makes them stands above."""
    codes = getattr(module, "weight_codes", None)
    plain = hasattr(module, "in_features") and not module._modules  # nothing stands beside the weights
    return plain and isinstance(codes, torch.Tensor) and codes.device.type == "cpu"


@dataclass(frozen=True, slots=True)
class _BoundLinear:
    """A Linear where it was found, and its weight."""

    owner: dict[str, Any]  # the modules among which it stands, by name
    name: str
    linear: nn.Module
    tensors: dict[str, Any]  # its own, by name
    kind: str  # its weight's name
    weight: torch.Tensor
    address: int  # of its numbers
    bias: torch.Tensor | None

    @classmethod
    def at(cls, layer: nn.Module, path: str) -> _BoundLinear:
        owner, _, name = path.rpartition(".")
        linear: Any = layer.get_submodule(path)
        tensors, kind = (linear._buffers, "weight_codes") if quantized(linear) else (linear._parameters, "weight")
        weight = tensors[kind]
        modules, bias = layer.get_submodule(owner)._modules, tensors.get("bias")
        return cls(modules, name, linear, tensors, kind, weight, weight.data_ptr(), bias)

    def is_current(self) -> bool:
        weight = self.weight
        here = self.owner[self.name] is self.linear and self.tensors[self.kind] is weight
        return here and self.tensors.get("bias") is self.bias and weight.data_ptr() == self.address


class BoundWeights:
    """A layer's Linears as the kernels see them, and whether they still are the layer's."""

    def __init__(self, layer: nn.Module, linears: tuple[str, ...]) -> None:
        """`linears`: their paths within the layer. All are `quantized`, or all have contiguous float32 weights."""
        self._found = [_BoundLinear.at(layer, path) for path in linears]
        self.handles = {one.name: _handle(one.linear) for one in self._found}
        self._modules = list(layer.modules())

    def is_current(self) -> bool:
        """False once a Linear was replaced or moved (by an adapter, a cast), or when a hook listens."""
        if not all(one.is_current() for one in self._found):
            return False
        return not any(module._forward_hooks or module._forward_pre_hooks for module in self._modules)


class LayerTable:
    """All layers of a language model as `qwa_layers` takes them. Attribute: `address`, of the first LayerStruct."""

    def __init__(self, layers: Sequence[Any], bounds: Sequence[BoundWeights]) -> None:
        self._bounds, self._norms = bounds, _norms(layers)
        structs = [_struct(layer, bound) for layer, bound in zip(layers, bounds, strict=True)]
        self._structs = (fused.LayerStruct * len(structs))(*structs)
        self.address = ctypes.addressof(self._structs)

    def is_current(self, layers: Sequence[Any]) -> bool:
        """Whether `layers` still are what it was made from."""
        return self._norms == _norms(layers) and all(bound.is_current() for bound in self._bounds)


def _struct(layer: Any, bound: BoundWeights) -> fused.LayerStruct:
    linears = (bound.handles[path.rpartition(".")[2]].struct for path in DECODER_LINEARS)
    first, second = layer.input_layernorm, layer.post_attention_layernorm
    return fused.LayerStruct(*linears, first.weight.data_ptr(), second.weight.data_ptr(), first.eps)


def _norms(layers: Sequence[Any]) -> list[int]:
    return [
        norm.weight.data_ptr() for layer in layers for norm in (layer.input_layernorm, layer.post_attention_layernorm)
    ]


def _handle(linear: Any) -> ops.Handle:
    sizes = {"in_features": linear.in_features, "out_features": linear.out_features}
    if not quantized(linear):
        return ops.Handle(linear.weight, None, linear.bias, **sizes, bits=32, group=0)
    return ops.Handle(
        linear.weight_codes, linear.weight_scales, linear.bias, **sizes, bits=linear.bits, group=linear.group
    )
