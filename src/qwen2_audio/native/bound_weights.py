"""A layer's weights as the kernels see them, by address, and whether they still are the layer's weights."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from . import ops
from .library import check_tensor
from .structs import LayerStruct

DECODER_LINEARS = (
    *(f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj")),
    *(f"mlp.{name}" for name in ("gate_proj", "up_proj", "down_proj")),
)

ADDS = "adds_to_output"  # attribute of a hook that only adds to a linear layer's output, as an adapter by request does


def quantized(module: nn.Module) -> bool:
    """Whether `module` is a quantised linear layer that the kernels can read.

    Its buffers' names tell, since the layer that owns these classes (quantize/) stands above this one.
    """
    codes = getattr(module, "weight_codes", None)
    plain = hasattr(module, "in_features") and not module._modules  # an adapter has modules beside the weights
    return plain and isinstance(codes, torch.Tensor) and codes.device.type == "cpu" and not module.dequantizes


@dataclass(frozen=True, slots=True)
class _BoundLinear:
    """A linear layer, where it stands in its model, and the weight that it had when it was bound."""

    siblings: dict[str, Any]  # the modules of its parent, by name
    name: str
    linear: nn.Module
    tensors: dict[str, Any]  # its parameters or buffers, by name
    weight_name: str
    weight: torch.Tensor
    address: int  # of the weight's numbers
    bias: torch.Tensor | None

    @classmethod
    def at(cls, layer: nn.Module, path: str) -> _BoundLinear:
        parent, _, name = path.rpartition(".")
        linear: Any = layer.get_submodule(path)
        if quantized(linear):
            tensors, weight_name = linear._buffers, "weight_codes"
        else:
            tensors, weight_name = linear._parameters, "weight"
        weight, siblings = tensors[weight_name], layer.get_submodule(parent)._modules
        return cls(siblings, name, linear, tensors, weight_name, weight, weight.data_ptr(), tensors.get("bias"))

    def is_current(self) -> bool:
        weight = self.weight
        same = self.siblings[self.name] is self.linear and self.tensors[self.weight_name] is weight
        return same and self.tensors.get("bias") is self.bias and weight.data_ptr() == self.address


class BoundWeights:
    """The linear layers of one layer as the kernels see them. Attribute: `handles`, by the linear layer's name."""

    def __init__(self, layer: nn.Module, linears: tuple[str, ...]) -> None:
        """`linears`: paths within `layer`. All are `quantized`, or all have contiguous float32 weights.

        Raises ValueError: a weight of another dtype, layout or length than its layer says.
        """
        self._linears = [_BoundLinear.at(layer, path) for path in linears]
        self.handles = {bound.name: _handle(bound.linear) for bound in self._linears}
        self._by_name = {bound.name: bound.linear for bound in self._linears}
        self._modules = list(layer.modules())

    def is_current(self) -> bool:
        """False once a linear layer was replaced, or its weight moved (by an adapter, a cast)."""
        return all(bound.is_current() for bound in self._linears)

    @property
    def hooked(self) -> bool:
        """Whether a module of the layer has a hook."""
        return any(module._forward_hooks or module._forward_pre_hooks for module in self._modules)

    @property
    def listened_to(self) -> bool:
        """Whether a module of the layer has a hook that `products` does not call."""
        return self.hooked and any(
            module._forward_pre_hooks or not all(hasattr(hook, ADDS) for hook in module._forward_hooks.values())
            for module in self._modules
        )

    def products(self, names: Sequence[str], x: torch.Tensor) -> list[torch.Tensor]:
        """The outputs of linear layers for x, float32 [..., in], with what their hooks add, if these have `ADDS`."""
        outs: list[torch.Tensor] = list(ops.linears([self.handles[name] for name in names], x))
        for index, name in enumerate(names):
            linear = self._by_name[name]
            for hook in tuple(linear._forward_hooks.values()):
                added = hook(linear, (x,), outs[index])
                outs[index] = outs[index] if added is None else added
        return outs


class LayerTable:
    """All layers of a language model, as `qwa_layers` takes them. Attribute: `address`, of the first LayerStruct."""

    def __init__(self, layers: Sequence[Any], weights: Sequence[BoundWeights]) -> None:
        """Raises ValueError: the widths of the layers do not fit together."""
        self._weights, self._norms = weights, _norm_addresses(layers)
        structs = [_struct(layer, bound) for layer, bound in zip(layers, weights, strict=True)]
        _check_widths(structs)
        self._structs = (LayerStruct * len(structs))(*structs)
        self.address = ctypes.addressof(self._structs)

    def is_current(self, layers: Sequence[Any]) -> bool:
        """Whether `layers` still have the weights that the table was made from."""
        return self._norms == _norm_addresses(layers) and all(bound.is_current() for bound in self._weights)

    @property
    def hooked(self) -> bool:
        """Whether one of the layers has a hook."""
        return any(bound.hooked for bound in self._weights)


def _struct(layer: Any, bound: BoundWeights) -> LayerStruct:
    linears = [bound.handles[path.rpartition(".")[2]].struct for path in DECODER_LINEARS]
    first, second = layer.input_layernorm, layer.post_attention_layernorm
    for norm in (first, second):
        check_tensor("the weight of a norm", norm.weight, linears[0].in_features)
    return LayerStruct(*linears, first.weight.data_ptr(), second.weight.data_ptr(), first.eps)


def _check_widths(structs: Sequence[LayerStruct]) -> None:
    """Native code takes the widths of all layers from the first, and of a layer's linears from each other."""
    hidden, inner = structs[0].q.in_features, structs[0].gate.out_features
    queries, keys = structs[0].q.out_features, structs[0].k.out_features
    expected = {
        "q": (hidden, queries),
        "k": (hidden, keys),
        "v": (hidden, keys),
        "o": (queries, hidden),
        "gate": (hidden, inner),
        "up": (hidden, inner),
        "down": (inner, hidden),
    }
    float32 = structs[0].q.bits == 32
    for index, struct in enumerate(structs):
        for name, shape in expected.items():
            linear = getattr(struct, name)
            if (linear.in_features, linear.out_features) != shape or (linear.bits == 32) != float32:
                raise ValueError(
                    f"{name} of layer {index} has {linear.in_features} inputs and {linear.out_features} outputs in "
                    f"{linear.bits} bits; expected {shape[0]} and {shape[1]}, and float32 in all layers or in none."
                )


def _norm_addresses(layers: Sequence[Any]) -> list[int]:
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
