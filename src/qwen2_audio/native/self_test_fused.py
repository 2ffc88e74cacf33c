"""Do the calls between the matrix products compute what torch computes? Checked once a process."""

from __future__ import annotations

import ctypes

import torch

TOLERANCE = 1e-5  # of the largest value
BATCH, QUERIES, PAST, HEADS, KV_HEADS, DIM = 2, 3, 300, 4, 2, 40
LENGTH = PAST + QUERIES
BLOCK = 16


def self_test(library: ctypes.CDLL) -> str | None:
    """None if every call is right, else the name of the first wrong one. `library` has its signatures declared."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 5, 200, generator=generator)
    norm, silu = torch.full((2, *x.shape), torch.nan)
    library.qwa_rms_norm(x.data_ptr(), y.data_ptr(), 1e-6, 5, 200, norm.data_ptr())
    library.qwa_silu_mul(x.data_ptr(), y.data_ptr(), x.numel(), silu.data_ptr())
    if not _near(norm, x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * y[0]):
        return "RMSNorm"
    if not _near(silu, torch.nn.functional.silu(x) * y):
        return "SwiGLU"
    if not _dense(library, generator):
        return "product with float32 weights"
    for kv_dtype in ("float32", "float16", "int8"):
        if not _attention(library, kv_dtype, generator):
            return f"attention over a cache of {kv_dtype}"
        if not _paged(library, kv_dtype, generator):
            return f"attention over a paged cache of {kv_dtype}"
    return None


def _dense(library: ctypes.CDLL, generator: torch.Generator) -> bool:
    """19 rows, which are more than a panel, and 40 columns, which are not a multiple of 6."""
    x, weight = torch.randn(59, 300, generator=generator).split((19, 40))
    out = torch.full((19, 40), torch.nan)
    library.qwa_dense(weight.data_ptr(), weight.data_ptr(), 300, 40, x.data_ptr(), 19, out.data_ptr())
    return _near(out, x @ weight.T + weight[0, :40])


def _attention(library: ctypes.CDLL, kv_dtype: str, generator: torch.Generator) -> bool:
    """RoPE, writing to the cache, and attention with grouped heads, causality and padding."""
    from .fused import KV_DTYPES
    from .structs import KVStruct, StepStruct

    q = torch.randn(BATCH, LENGTH, HEADS * DIM, generator=generator)
    k, v = torch.randn(2, BATCH, LENGTH, KV_HEADS * DIM, generator=generator)
    angles = torch.randn(LENGTH, DIM, generator=generator)
    cosine, sine = angles.cos(), angles.sin()
    seen = torch.ones(BATCH, LENGTH, dtype=torch.bool)
    seen[1, :270] = False
    keys, values, scales = _cache(kv_dtype, (BATCH, KV_HEADS, LENGTH, DIM))
    addresses = [t.data_ptr() for t in (keys, values, *(scales if kv_dtype == "int8" else ()))]
    kv = KVStruct(*addresses, *[None] * (4 - len(addresses)), LENGTH)

    def step(queries: int, past: int, mask: torch.Tensor | None) -> StepStruct:
        rope = (cosine[past:].data_ptr(), sine[past:].data_ptr(), 0, None if mask is None else mask.data_ptr())
        return StepStruct(BATCH, queries, past, HEADS, KV_HEADS, DIM, KV_DTYPES[kv_dtype], DIM**-0.5, *rope)

    rotated = [_rotate(t, cosine, sine) for t in (q, k)]
    whole = step(LENGTH, 0, None)
    library.qwa_rotate(ctypes.addressof(whole), KV_HEADS, k.data_ptr())
    library.qwa_write_kv(ctypes.addressof(whole), ctypes.addressof(kv), k.data_ptr(), v.data_ptr())
    newest = step(QUERIES, PAST, seen)
    query = rotated[0][:, :, -QUERIES:].transpose(1, 2).contiguous()
    out = torch.full((BATCH, QUERIES, HEADS * DIM), torch.nan)
    library.qwa_attention(ctypes.addressof(newest), ctypes.addressof(kv), query.data_ptr(), out.data_ptr())
    stored = keys.float(), values.float()
    if kv_dtype == "int8":
        stored = stored[0] * scales[0], stored[1] * scales[1]
    limits = {"float32": 1e-6, "float16": 2**-11, "int8": 1 / 253}
    written = zip(stored, (rotated[1], _heads(v)), strict=True)
    if not all(bool(((a - b).abs() <= limits[kv_dtype] * b.abs().amax(-1, keepdim=True)).all()) for a, b in written):
        return False
    mask = torch.ones(QUERIES, LENGTH, dtype=torch.bool).tril(PAST) & seen[:, None, None]
    expected = torch.nn.functional.scaled_dot_product_attention(
        rotated[0][:, :, -QUERIES:], stored[0], stored[1], attn_mask=mask, enable_gqa=True
    )
    return _near(out, expected.transpose(1, 2).flatten(2))


def _paged(library: ctypes.CDLL, kv_dtype: str, generator: torch.Generator) -> bool:
    """Packed steps of two sequences whose blocks are in random order: many new positions, then a few more."""
    from .fused import KV_DTYPES
    from .structs import KVStruct, StepStruct

    blocks_each = -(-LENGTH // BLOCK)
    tables = torch.randperm(BATCH * blocks_each, generator=generator).to(torch.int32).view(BATCH, blocks_each)
    q = torch.randn(BATCH, LENGTH, HEADS * DIM, generator=generator)
    k, v = torch.randn(2, BATCH, LENGTH, KV_HEADS * DIM, generator=generator)
    angles = torch.randn(LENGTH, DIM, generator=generator)
    cosine, sine = angles.cos(), angles.sin()
    keys, values, scales = _cache(kv_dtype, (BATCH * blocks_each, KV_HEADS, BLOCK, DIM))
    addresses = [t.data_ptr() for t in (keys, values, *(scales if kv_dtype == "int8" else ()))]
    kv = KVStruct(*addresses, *[None] * (4 - len(addresses)), 0)
    pasts = [0, 0]
    for counts in ([PAST, 57], [QUERIES, QUERIES]):
        parts = [slice(past, past + count) for past, count in zip(pasts, counts, strict=True)]
        new_q, new_k, new_v = (torch.cat([t[i, part] for i, part in enumerate(parts)]) for t in (q, k, v))
        sides = [torch.cat([side[part] for part in parts]) for side in (cosine, sine)]
        ints = [torch.tensor(numbers, dtype=torch.int32) for numbers in ([0, counts[0], sum(counts)], pasts)]
        rope = (*(side.data_ptr() for side in sides), 0, None)
        blocks = (tables.data_ptr(), *(t.data_ptr() for t in ints), blocks_each, BLOCK)
        step = StepStruct(BATCH, 0, 0, HEADS, KV_HEADS, DIM, KV_DTYPES[kv_dtype], DIM**-0.5, *rope, *blocks)
        library.qwa_rotate(ctypes.addressof(step), HEADS, new_q.data_ptr())
        library.qwa_rotate(ctypes.addressof(step), KV_HEADS, new_k.data_ptr())
        library.qwa_write_kv(ctypes.addressof(step), ctypes.addressof(kv), new_k.data_ptr(), new_v.data_ptr())
        out = torch.full_like(new_q, torch.nan)
        library.qwa_attention(ctypes.addressof(step), ctypes.addressof(kv), new_q.data_ptr(), out.data_ptr())
        stored = [t[tables.long()].float() for t in (keys, values)]
        if kv_dtype == "int8":
            stored = [t * scale[tables.long()] for t, scale in zip(stored, scales, strict=True)]
        key, value = (t.transpose(1, 2).flatten(2, 3) for t in stored)  # [B, kv_heads, blocks_each * BLOCK, D]
        for i, (part, computed) in enumerate(zip(parts, out.split(counts), strict=True)):
            query = _rotate(q[i : i + 1, part], cosine[part], sine[part])
            seen = torch.ones(counts[i], part.stop, dtype=torch.bool).tril(part.start)
            seen_keys, seen_values = (t[i : i + 1, :, : part.stop] for t in (key, value))
            expected = torch.nn.functional.scaled_dot_product_attention(
                query, seen_keys, seen_values, attn_mask=seen, enable_gqa=True
            )
            if not _near(computed, expected.transpose(1, 2).flatten(2)[0]):
                return False
        pasts = counts
    return True


def _cache(kv_dtype: str, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    dtype = {"float32": torch.float32, "float16": torch.float16, "int8": torch.int8}[kv_dtype]
    keys, values = torch.zeros(2, *shape).to(dtype)
    return keys, values, torch.zeros(2, *shape[:3], 1)


def _heads(x: torch.Tensor) -> torch.Tensor:
    return x.view(*x.shape[:2], -1, DIM).transpose(1, 2)


def _rotate(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    x = _heads(x).clone()
    first, second = x.chunk(2, -1)
    return x * cosine + torch.cat((-second, first), -1) * sine


def _near(computed: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.allclose(computed, expected, rtol=0, atol=TOLERANCE * float(expected.abs().max()))
