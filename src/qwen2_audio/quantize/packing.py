"""The layout of quantised weights in memory and in files: panels of 16 outputs, groups of inputs, chunks of 64 bytes.

N outputs, K inputs, P = ceil(N / 16) panels, G = ceil(K / group) groups. Byte 4 j + i of a chunk belongs to output j of
its panel:

    4 bits   codes uint8 [P, G, 8 group]:  chunk t has input 8 t + i in the low nibble, 8 t + 4 + i in the high one
    8 bits   codes uint8 [P, G, 16 group]: chunk t has input 4 t + i
    16 bits  codes float16 [P, K, 16]: the weights themselves, input by input
    scales   float16 [P, G, 16], for 4 and 8 bits: weight = (code - 8 or 128) * scale

N and K are padded to full panels and groups with zeros: padded inputs have zero-point codes, padded outputs scale 0. A
kernel reads each panel sequentially, from its first byte to its last.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

PANEL = 16  # outputs per panel
BYTES = 4  # adjacent inputs of one output
BITS, GROUPS = (4, 8, 16), (32, 64)
LIMITS = {4: (-8, 7), 8: (-127, 127)}  # of a quantised weight q = code - zero point
ZERO = {4: 8, 8: 128}


@dataclass(frozen=True)
class Format:
    """How one weight is stored: 4, 8 or 16 bits; with 4 and 8, `group` (32 or 64) inputs of an output share a scale."""

    bits: int
    group: int = 0

    def codes(self, out_features: int, in_features: int) -> tuple[tuple[int, ...], torch.dtype]:
        """Shape and dtype of a Linear's codes."""
        panels = -(-out_features // PANEL)
        if self.bits == 16:
            return (panels, in_features, PANEL), torch.float16
        return (panels, self.groups(in_features), self.group * PANEL * self.bits // 8), torch.uint8

    def scales(self, out_features: int, in_features: int) -> tuple[int, ...] | None:
        """Shape of a Linear's float16 scales; None for 16 bits."""
        if self.bits == 16:
            return None
        return (-(-out_features // PANEL), self.groups(in_features), PANEL)

    def groups(self, in_features: int) -> int:
        return -(-in_features // self.group)


def pack(q: torch.Tensor, bits: int, group: int) -> torch.Tensor:
    """Quantised weights int8 [N, K] -> codes uint8 [P, G, bytes of a group]."""
    padded = pad(q, group)
    panels, groups = padded.shape[0] // PANEL, padded.shape[1] // group
    shifted = (padded.to(torch.int16) + ZERO[bits]).to(torch.uint8)
    words = shifted.view(torch.int32)  # [N, K / 4]: four adjacent inputs are moved as one number
    if bits == 8:
        words = words.view(panels, PANEL, groups, group // BYTES)
    else:
        pairs = words.view(panels, PANEL, groups, group // (2 * BYTES), 2)
        words = pairs[..., 0] | pairs[..., 1] << 4
    return words.permute(0, 2, 3, 1).contiguous().view(torch.uint8).view(panels, groups, -1)


def unpack(codes: torch.Tensor, bits: int, group: int) -> torch.Tensor:
    """Codes uint8 [P, G, bytes of a group] -> quantised weights int8 [16 P, group G], padding included."""
    panels, groups = codes.shape[:2]
    words = codes.contiguous().view(torch.int32).view(panels, groups, -1, PANEL).permute(0, 3, 1, 2)
    if bits == 4:
        words = torch.stack((words & 0x0F0F0F0F, words >> 4 & 0x0F0F0F0F), dim=-1)
    unsigned = words.contiguous().view(torch.uint8).view(panels * PANEL, groups * group)
    return (unsigned.to(torch.int16) - ZERO[bits]).to(torch.int8)


def pack_scales(scales: torch.Tensor) -> torch.Tensor:
    """float16 [N, G] -> [P, G, 16]."""
    padded = pad(scales, 1)
    return padded.view(-1, PANEL, scales.shape[1]).transpose(1, 2).contiguous()


def pack_half(weight: torch.Tensor) -> torch.Tensor:
    """Weights [N, K] -> float16 [P, K, 16]."""
    padded = pad(weight.to(torch.float16), 1)
    return padded.view(-1, PANEL, weight.shape[1]).transpose(1, 2).contiguous()


def dequantize(codes: torch.Tensor, scales: torch.Tensor | None, bits: int, group: int) -> torch.Tensor:
    """Weights as float32 [16 P, group G] (16 bits: [16 P, K]), padding included and zero."""
    if bits == 16:
        return codes.transpose(1, 2).reshape(-1, codes.shape[1]).float()
    assert scales is not None
    q = unpack(codes, bits, group)
    by_output = scales.transpose(1, 2).reshape(q.shape[0], -1, 1).float()  # [16 P, G, 1]
    return (q.view(*by_output.shape[:2], group).float() * by_output).view(q.shape)


def pad(tensor: torch.Tensor, group: int) -> torch.Tensor:
    """[N, K] padded with zeros to full panels and groups; contiguous."""
    rows, columns = -tensor.shape[0] % PANEL, -tensor.shape[1] % group
    return torch.nn.functional.pad(tensor, (0, columns, 0, rows)).contiguous()
