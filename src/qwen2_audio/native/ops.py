"""Quantised linear layers on torch tensors.

M rows, K inputs, N outputs, P panels of 16 outputs, G groups of inputs. Weights are laid out as csrc/qwa.h says and are
never copied.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch

from . import library
from .library import check_tensor
from .structs import LinearStruct

PANEL = 16  # outputs


def available() -> bool:
    """Whether there are kernels for this machine.

    Raises ConfigError: $QWEN2_AUDIO_ISA names an instruction set that cannot be used.
    """
    return library.load().library is not None


def has_memory(x: torch.Tensor) -> bool:
    """Whether `x` holds numbers that native code can read, and not those of torch.export, torch.compile or a trace."""
    return (
        type(x) is torch.Tensor
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined]
    )


class Handle:
    """A linear layer as the kernels see it. It keeps its tensors alive; make it once and use it often.

    codes: uint8 [P, G, group * bits * 2] (4 and 8 bits), float16 [P, K, 16] or float32 [N, K] (32 bits: only for
    whole layers, `fused.layers_`); scales: float16 [P, G, 16] for 4 and 8 bits, else None; bias: float32 [N] or None.
    """

    def __init__(
        self,
        codes: torch.Tensor,
        scales: torch.Tensor | None,
        bias: torch.Tensor | None,
        *,
        in_features: int,
        out_features: int,
        bits: int,
        group: int,
    ) -> None:
        """Raises ValueError: a format that the kernels do not have, or a tensor of another dtype, layout or length."""
        self._tensors = (codes, scales, bias)
        _check_weights(self._tensors, in_features, out_features, bits, group)
        pointers = (None if t is None else t.data_ptr() for t in self._tensors)
        self.in_features, self.out_features, self.bits = in_features, out_features, bits
        self.struct = LinearStruct(*pointers, in_features, out_features, bits, group)
        self.pointer = ctypes.addressof(self.struct)


def linears(handles: Sequence[Handle], x: torch.Tensor) -> list[torch.Tensor]:
    """x float32 [..., K] times each of several linears with one input, which is quantised once: float32 [..., N_i].

    Raises:
        ValueError: x is not float32 on the CPU or has not K columns; the linears have different K, or float32 weights.
        CapacityError: the system refused working memory.
    """
    kernels = library.load().library
    assert kernels is not None
    inputs, count = handles[0].in_features, len(handles)
    if x.dtype is not torch.float32 or not x.is_cpu or x.shape[-1] != inputs:
        raise ValueError(
            f"x is {x.dtype} {list(x.shape)} on {x.device.type}; expected torch.float32 [..., {inputs}] on cpu, as the "
            "linear has that many inputs."
        )
    if any(handle.in_features != inputs or handle.bits > 16 for handle in handles):
        formats = ", ".join(f"{handle.in_features} inputs in {handle.bits} bits" for handle in handles)
        raise ValueError(f"The linears have {formats}; expected one number of inputs, and 4, 8 or 16 bits.")
    library.follow_torch(kernels)
    rows = x.reshape(-1, inputs)
    if rows.stride(1) != 1:
        rows = rows.contiguous()
    outs = [x.new_empty(*x.shape[:-1], handle.out_features) for handle in handles]
    if len(rows):
        kernels.qwa_linears(
            (ctypes.c_void_p * count)(*(handle.pointer for handle in handles)),
            count,
            rows.data_ptr(),
            len(rows),
            rows.stride(0),
            (ctypes.c_void_p * count)(*(out.data_ptr() for out in outs)),
            (ctypes.c_int64 * count)(*(handle.out_features for handle in handles)),
        )
    return outs


def linear(
    x: torch.Tensor,
    codes: torch.Tensor,
    scales: torch.Tensor | None,
    bias: torch.Tensor | None,
    *,
    in_features: int,
    out_features: int,
    bits: int,
    group: int,
) -> torch.Tensor:
    """x float32 [..., K] -> float32 [..., N], with weights as in `Handle`."""
    handle = Handle(codes, scales, bias, in_features=in_features, out_features=out_features, bits=bits, group=group)
    return linears([handle], x)[0]


def _check_weights(
    tensors: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None],
    inputs: int,
    outputs: int,
    bits: int,
    group: int,
) -> None:
    codes, scales, bias = tensors
    grouped, panels = bits in (4, 8), -(-outputs // PANEL)
    if bits not in (4, 8, 16, 32) or (grouped and group not in (32, 64)) or grouped is (scales is None):
        raise ValueError(
            f"The weights have {bits} bits in groups of {group} {'without' if scales is None else 'with'} scales; "
            "expected 4 or 8 bits in groups of 32 or 64 with scales, or 16 or 32 bits without."
        )
    if grouped:
        groups = -(-inputs // group)
        check_tensor("codes", codes, panels * groups * group * 2 * bits, torch.uint8)
        assert scales is not None
        check_tensor("scales", scales, panels * groups * PANEL, torch.float16)
    elif bits == 16:
        check_tensor("codes", codes, panels * inputs * PANEL, torch.float16)
    else:
        check_tensor("codes", codes, outputs * inputs)
    if bias is not None:
        check_tensor("bias", bias, outputs)
