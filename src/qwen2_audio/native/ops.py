"""The kernels on torch tensors.

M rows, K inputs, N outputs. Weights are laid out as csrc/qwa.h says and are never copied.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch

from . import library
from .library import LinearStruct


def available() -> bool:
    """Whether there are kernels for this machine. Raises ConfigError when $QWEN2_AUDIO_ISA asks for what cannot be."""
    return library.load().library is not None


class Handle:
    """A quantised linear as the kernels see it. Keeps its tensors alive; make it once and use it often.

    codes: uint8 [P, G, group * bits * 2] (bits 4 and 8) or float16 [P, K, 16]; scales: float16 [P, G, 16] or None;
    bias: float32 [N] or None. All contiguous, on the CPU.
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
        self._tensors = (codes, scales, bias)
        assert all(t is None or (t.is_contiguous() and t.device.type == "cpu") for t in self._tensors)
        pointers = (None if t is None else t.data_ptr() for t in self._tensors)
        self.in_features, self.out_features = in_features, out_features
        self.struct = LinearStruct(*pointers, in_features, out_features, bits, group)
        self.pointer = ctypes.addressof(self.struct)


def linears(handles: Sequence[Handle], x: torch.Tensor) -> list[torch.Tensor]:
    """x float32 [..., K] times each of several linears with one input, which is quantised once: float32 [..., N_i]."""
    found = library.load().library
    assert found is not None
    library.follow_torch(found)
    inputs = handles[0].in_features
    rows = x.reshape(-1, inputs)
    if rows.stride(1) != 1:
        rows = rows.contiguous()
    outs = [x.new_empty(*x.shape[:-1], handle.out_features) for handle in handles]
    if len(rows):
        count = len(handles)
        found.qwa_linears(
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
