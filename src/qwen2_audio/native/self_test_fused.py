"""Do the calls between the matrix products compute what torch computes? Asked once a process."""

from __future__ import annotations

import ctypes

import torch

TOLERANCE = 1e-5  # of the largest value
BATCH, QUERIES, PAST, HEADS, KV_HEADS, DIM = 2, 3, 300, 4, 2, 40
LENGTH = PAST + QUERIES


def self_test(library: ctypes.CDLL) -> str | None:
    """None when all is right, else the name of what is wrong. `library` has its signatures declared."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 5, 200, generator=generator)
    norm, silu = torch.full((2, *x.shape), torch.nan)
    library.qwa_rms_norm(x.data_ptr(), y.data_ptr(), 1e-6, 5, 200, norm.data_ptr())
    library.qwa_silu_mul(x.data_ptr(), y.data_ptr(), x.numel(), silu.data_ptr())
    if not _near(norm, x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * y[0]):
        return "RMSNorm"
    if not _near(silu, torch.nn.functional.silu(x) * y):
        return "SwiGLU"
    for kv_dtype in ("float32", "float16", "int8"):
        if not _attention(library, kv_dtype, generator):
            return f"attention over a cache of {kv_dtype}"
    return None


def _attention(library: ctypes.CDLL, kv_dtype: str, generator: torch.Generator) -> bool:
    """RoPE, the way into the cache, and attention with grouped heads, causality and padding."""
    from .fused import KV_DTYPES, KVStruct, StepStruct

    q = torch.randn(BATCH, LENGTH, HEADS * DIM, generator=generator)
    k, v = torch.randn(2, BATCH, LENGTH, KV_HEADS * DIM, generator=generator)
    angles = torch.randn(LENGTH, DIM, generator=generator)
    cosine, sine = angles.cos(), angles.sin()
    seen = torch.ones(BATCH, LENGTH, dtype=torch.bool)
    seen[1, :270] = False
    keys, values, scales = _cache(kv_dtype)
    addresses = [t.data_ptr() for t in (keys, values, *(scales if kv_dtype == "int8" else ()))]
    kv = KVStruct(*addresses, *[None] * (4 - len(addresses)), LENGTH)

    def step(queries: int, past: int, mask: torch.Tensor | None) -> StepStruct:
        rope = (cosine[past:].data_ptr(), sine[past:].data_ptr(), 0, None if mask is None else mask.data_ptr())
        return StepStruct(BATCH, queries, past, HEADS, KV_HEADS, DIM, KV_DTYPES[kv_dtype], DIM**-0.5, *rope)

    rotated = [_rotate(t, cosine, sine) for t in (q, k)]
    whole = step(LENGTH, 0, None)
    library.qwa_rotate(ctypes.addressof(whole), KV_HEADS, k.data_ptr())
    library.qwa_keep(ctypes.addressof(whole), ctypes.addressof(kv), k.data_ptr(), v.data_ptr())
    newest = step(QUERIES, PAST, seen)
    asked = rotated[0][:, :, -QUERIES:].transpose(1, 2).contiguous()
    out = torch.full((BATCH, QUERIES, HEADS * DIM), torch.nan)
    library.qwa_attention(ctypes.addressof(newest), ctypes.addressof(kv), asked.data_ptr(), out.data_ptr())
    stored = keys.float(), values.float()
    if kv_dtype == "int8":
        stored = stored[0] * scales[0], stored[1] * scales[1]
    limits = {"float32": 1e-6, "float16": 2**-11, "int8": 1 / 253}
    near = zip(stored, (rotated[1], _heads(v)), strict=True)
    if not all(bool(((a - b).abs() <= limits[kv_dtype] * b.abs().amax(-1, keepdim=True)).all()) for a, b in near):
        return False
    mask = torch.ones(QUERIES, LENGTH, dtype=torch.bool).tril(PAST) & seen[:, None, None]
    expected = torch.nn.functional.scaled_dot_product_attention(
        rotated[0][:, :, -QUERIES:], stored[0], stored[1], attn_mask=mask, enable_gqa=True
    )
    return _near(out, expected.transpose(1, 2).flatten(2))


def _cache(kv_dtype: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    dtype = {"float32": torch.float32, "float16": torch.float16, "int8": torch.int8}[kv_dtype]
    keys, values = torch.zeros(2, BATCH, KV_HEADS, LENGTH, DIM).to(dtype)
    return keys, values, torch.zeros(2, BATCH, KV_HEADS, LENGTH, 1)


def _heads(x: torch.Tensor) -> torch.Tensor:
    return x.view(*x.shape[:2], -1, DIM).transpose(1, 2)


def _rotate(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    x = _heads(x).clone()
    first, second = x.chunk(2, -1)
    return x * cosine + torch.cat((-second, first), -1) * sine


def _near(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.allclose(found, expected, rtol=0, atol=TOLERANCE * float(expected.abs().max()))
