"""The layout of codes and scales, against a loop that spells it out."""

import pytest
import torch

from qwen2_audio.quantize.packing import (
    LIMITS,
    PANEL,
    ZERO,
    Format,
    dequantize,
    pack,
    pack_half,
    pack_scales,
    unpack,
)

SHAPES = [(16, 64), (1, 1), (17, 65), (40, 96), (33, 200)]


def drawn(n: int, k: int, bits: int) -> torch.Tensor:
    low, high = LIMITS[bits]
    return torch.randint(low, high + 1, (n, k), generator=torch.Generator().manual_seed(n * k), dtype=torch.int8)


def packed_by_hand(q: torch.Tensor, bits: int, group: int) -> torch.Tensor:
    """Every byte where the layout says it is."""
    outputs, inputs = q.shape
    panels, groups = -(-outputs // PANEL), -(-inputs // group)
    codes = torch.zeros(panels, groups, group * PANEL * bits // 8, dtype=torch.int64)
    for n in range(panels * PANEL):
        for k in range(groups * group):
            inside = n < outputs and k < inputs
            code = (int(q[n, k]) if inside else 0) + ZERO[bits]
            p, j, g, within = n // PANEL, n % PANEL, k // group, k % group
            if bits == 8:
                t, i = divmod(within, 4)
                codes[p, g, 64 * t + 4 * j + i] += code
            else:
                t, rest = divmod(within, 8)
                high, i = divmod(rest, 4)
                codes[p, g, 64 * t + 4 * j + i] += code << (4 if high else 0)
    return codes.to(torch.uint8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("group", [32, 64])
@pytest.mark.parametrize("bits", [4, 8])
def test_codes_lie_where_the_layout_says(bits, group, shape):
    q = drawn(*shape, bits)
    codes = pack(q, bits, group)
    assert torch.equal(codes, packed_by_hand(q, bits, group))
    assert (tuple(codes.shape), codes.dtype) == Format(bits, group).codes(*shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("group", [32, 64])
@pytest.mark.parametrize("bits", [4, 8])
def test_there_and_back(bits, group, shape):
    q = drawn(*shape, bits)
    whole = unpack(pack(q, bits, group), bits, group)
    assert torch.equal(whole[: shape[0], : shape[1]], q)
    assert not whole[shape[0] :].any()
    assert not whole[:, shape[1] :].any()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bits", [4, 8])
def test_a_weight_is_code_times_scale(bits, shape):
    q, form = drawn(*shape, bits), Format(bits, 32)
    scales = torch.randn(shape[0], form.groups(shape[1])).half()
    packed = pack_scales(scales)
    assert tuple(packed.shape) == form.scales(*shape)
    weight = dequantize(pack(q, bits, 32), packed, bits, 32)
    for n in range(shape[0]):
        for k in range(shape[1]):
            assert weight[n, k] == float(q[n, k]) * float(scales[n, k // 32])
    padding = packed.transpose(1, 2).reshape(-1, form.groups(shape[1]))[shape[0] :]
    assert not padding.any()


@pytest.mark.parametrize("shape", SHAPES)
def test_sixteen_bits_lie_input_by_input(shape):
    weight = torch.randn(shape)
    codes = pack_half(weight)
    assert (tuple(codes.shape), codes.dtype) == Format(16).codes(*shape)
    assert Format(16).scales(*shape) is None
    for n in range(codes.shape[0] * PANEL):
        column = codes[n // PANEL, :, n % PANEL]
        assert torch.equal(column, weight[n].half() if n < shape[0] else torch.zeros_like(column))
    assert torch.equal(dequantize(codes, None, 16, 0)[: shape[0]], weight.half().float())
