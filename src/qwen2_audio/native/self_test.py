"""Do the linear kernels compute what torch computes? Checked once a process: each format, few rows and many."""

from __future__ import annotations

import ctypes
import itertools

import torch

K, N, PANEL = 200, 40, 16  # neither a multiple of a group nor of a panel
TOLERANCE = 1e-5  # of the largest value


def self_test(library: ctypes.CDLL) -> str | None:
    """None if every product is right, else the name of the first wrong one."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(19, K, generator=generator)
    bias = torch.randn(N, generator=generator)
    for bits, group in ((4, 64), (4, 32), (8, 64), (8, 32), (16, 0)):
        codes, scales, weight = _weights(bits, group, generator)
        for rows in (1, 3, 8, 19):
            y = _native(library, codes, scales, bias, x[:rows], bits, group)
            expected = (quantized(x[:rows], group) if group else x[:rows].double()) @ weight.T + bias
            if not torch.allclose(y.double(), expected, rtol=0, atol=TOLERANCE * float(expected.abs().max())):
                return f"{bits} bits, group {group}, {rows} rows"
    return None


def quantized(x: torch.Tensor, group: int) -> torch.Tensor:
    """x [M, K] quantised to 8 bits in groups and back, in float64."""
    padded = torch.nn.functional.pad(x, (0, -x.shape[1] % group)).view(len(x), -1, group)
    most = padded.abs().amax(-1, keepdim=True)
    q = torch.round(padded * (127 / most))
    return (q.double() * (most / 127).double()).flatten(1)[:, : x.shape[1]]


def _weights(
    bits: int, group: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Random codes, scales, and the float64 weight [N, K] they stand for, read as csrc/qwa.h says, byte by byte."""
    panels = -(-N // PANEL)
    if bits == 16:
        codes = torch.randn(panels, K, PANEL, generator=generator).half()
        return codes, None, codes.double().transpose(1, 2).reshape(-1, K)[:N]
    groups = -(-K // group)
    codes = torch.randint(0, 256, (panels, groups, group * PANEL * bits // 8), dtype=torch.uint8, generator=generator)
    if bits == 8:
        codes.clamp_(min=1)  # -128 is no weight
    scales = torch.rand(panels, groups, PANEL, generator=generator).half()
    weight = torch.zeros(panels * PANEL, groups * group, dtype=torch.float64)
    chunks = codes.view(panels, groups, -1, PANEL, 4).double()
    step = 8 if bits == 4 else 4
    for p, g, t, i in itertools.product(range(panels), range(groups), range(chunks.shape[2]), range(4)):
        column, rows, scale = g * group + step * t + i, slice(p * PANEL, (p + 1) * PANEL), scales[p, g].double()
        code = chunks[p, g, t, :, i]
        if bits == 4:
            weight[rows, column] = (code % 16 - 8) * scale
            weight[rows, column + 4] = (code // 16 - 8) * scale
        else:
            weight[rows, column] = (code - 128) * scale
    return codes, scales, weight[:N, :K]


def _native(
    library: ctypes.CDLL,
    codes: torch.Tensor,
    scales: torch.Tensor | None,
    bias: torch.Tensor,
    x: torch.Tensor,
    bits: int,
    group: int,
) -> torch.Tensor:
    from .structs import LinearStruct

    y = torch.full((len(x), N), float("nan"))
    scales_address = None if scales is None else scales.data_ptr()
    struct = LinearStruct(codes.data_ptr(), scales_address, bias.data_ptr(), K, N, bits, group)
    structs, outputs = (ctypes.c_void_p * 1)(ctypes.addressof(struct)), (ctypes.c_void_p * 1)(y.data_ptr())
    library.qwa_linears(structs, 1, x.data_ptr(), len(x), K, outputs, (ctypes.c_int64 * 1)(N))
    return y
