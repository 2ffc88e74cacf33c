"""What stands between the matrix products, in native code: the structs and calls of csrc/qwa.h, on torch tensors.

B rows of a batch, Q new positions of each, D head width, H hidden width. Tensors are float32, contiguous, on the CPU.
"""

from __future__ import annotations

import ctypes
import logging
from functools import cache

import torch

from ..checkpoint.config import Qwen2Config
from ..model.paged import PagedAttentionBatch
from . import library
from .library import LinearStruct

SMALL_ROWS = 32  # rows up to here: all layers in one call
KV_DTYPES = {"float32": 0, "float16": 1, "int8": 2}  # as QWA_FLOAT32 and so on

logger = logging.getLogger(__name__)


class KVStruct(ctypes.Structure):
    """`qwa_kv`."""

    _fields_ = [
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("key_scales", ctypes.c_void_p),
        ("value_scales", ctypes.c_void_p),
        ("capacity", ctypes.c_int64),
    ]


class StepStruct(ctypes.Structure):
    """`qwa_step`."""

    _fields_ = [
        ("batch", ctypes.c_int32),
        ("queries", ctypes.c_int32),
        ("past", ctypes.c_int32),
        ("heads", ctypes.c_int32),
        ("kv_heads", ctypes.c_int32),
        ("head_dim", ctypes.c_int32),
        ("kv_dtype", ctypes.c_int32),
        ("scale", ctypes.c_float),
        ("cosine", ctypes.c_void_p),
        ("sine", ctypes.c_void_p),
        ("rope_stride", ctypes.c_int64),
        ("mask", ctypes.c_void_p),
        ("tables", ctypes.c_void_p),
        ("starts", ctypes.c_void_p),
        ("pasts", ctypes.c_void_p),
        ("table_stride", ctypes.c_int64),
        ("block", ctypes.c_int32),
    ]


class LayerStruct(ctypes.Structure):
    """`qwa_layer`."""

    _fields_ = [
        *((name, LinearStruct) for name in ("q", "k", "v", "o", "gate", "up", "down")),
        ("attention_norm", ctypes.c_void_p),
        ("mlp_norm", ctypes.c_void_p),
        ("eps", ctypes.c_float),
    ]


@cache
def kernels() -> ctypes.CDLL | None:
    """The library with these calls, once a process; None where there is none or a call does not do what torch does.

    Raises ConfigError: $QWEN2_AUDIO_ISA asks for what cannot be.
    """
    from .self_test_fused import self_test

    found = library.load().library
    if found is None:
        return None
    declare(found)
    wrong = self_test(found)
    if wrong is not None:
        logger.warning("The native %s is refused: it differs from torch. Torch computes it.", wrong)
        return None
    return found


def declare(found: ctypes.CDLL) -> None:
    """Tell ctypes the signatures."""
    pointer, i64 = ctypes.c_void_p, ctypes.c_int64
    found.qwa_dense.argtypes = [pointer, pointer, i64, i64, pointer, i64, pointer]
    found.qwa_rms_norm.argtypes = [pointer, pointer, ctypes.c_float, i64, i64, pointer]
    found.qwa_silu_mul.argtypes = [pointer, pointer, i64, pointer]
    found.qwa_rotate.argtypes = [pointer, ctypes.c_int, pointer]
    found.qwa_write_kv.argtypes = [pointer, pointer, pointer, pointer]
    found.qwa_attention.argtypes = [pointer, pointer, pointer, pointer]
    found.qwa_layers.argtypes = [pointer, pointer, ctypes.c_int, pointer, pointer]
    for name in ("dense", "rms_norm", "silu_mul", "rotate", "write_kv", "attention", "layers"):
        getattr(found, f"qwa_{name}").restype = None


class Step:
    """What all layers of a forward pass share, as `qwa_step`. Keeps its tensors alive."""

    def __init__(
        self,
        config: Qwen2Config,
        shape: tuple[int, int, int],
        rope: tuple[torch.Tensor, torch.Tensor],
        keys: torch.Tensor | None = None,
        kv_dtype: str = "float32",
    ) -> None:
        """`shape`: rows, new positions, positions in the cache before. `rope`: cos and sin [B or 1, 1, Q, D].

        `keys`: bool [B, cached + Q], False is padding; None: nothing is padded.
        """
        batch, queries, past = shape
        dim = config.head_dim
        # What broadcasts for torch is written out; what does not fit fails here, not in native memory.
        cosine, sine = (part.expand(len(part) if len(part) == 1 else batch, 1, queries, dim) for part in rope)
        cosine, sine = cosine.contiguous(), sine.contiguous()
        mask = None if keys is None else keys.expand(batch, past + queries).contiguous()
        self._tensors: tuple[torch.Tensor | None, ...] = (cosine, sine, mask)
        self.struct = StepStruct(
            batch,
            queries,
            past,
            config.num_attention_heads,
            config.num_key_value_heads,
            dim,
            KV_DTYPES[kv_dtype],
            dim**-0.5,
            cosine.data_ptr(),
            sine.data_ptr(),
            0 if len(cosine) == 1 else queries * dim,
            None if mask is None else mask.data_ptr(),
        )
        self.pointer = ctypes.addressof(self.struct)


class PackedStep(Step):
    """The same of a pass over a paged cache."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        step: PagedAttentionBatch,
        rope: tuple[torch.Tensor, torch.Tensor],
        kv_dtype: str,
    ) -> None:
        """`shape`: heads, kv_heads, head_dim; `rope`: cos and sin [1, 1, N, D]; `kv_dtype`: that of the storage."""
        heads, kv_heads, dim = shape
        rows = step.starts[-1]
        cosine, sine = (part.expand(1, 1, rows, dim).contiguous() for part in rope)
        self._tensors, self._pass = (cosine, sine), step
        self.struct = StepStruct(
            batch=len(step.query_lens),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=dim,
            kv_dtype=KV_DTYPES[kv_dtype],
            scale=dim**-0.5,
            cosine=cosine.data_ptr(),
            sine=sine.data_ptr(),
            tables=step.tables.buffer_info()[0],
            starts=step.starts.buffer_info()[0],
            pasts=step.num_computed.buffer_info()[0],
            table_stride=step.width,
            block=step.storage.block,
        )
        self.pointer = ctypes.addressof(self.struct)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """weight * (x / rms(x)) over the last dimension."""
    x, out = x.contiguous(), torch.empty_like(x, memory_format=torch.contiguous_format)
    _ready().qwa_rms_norm(x.data_ptr(), weight.data_ptr(), eps, x.numel() // x.shape[-1], x.shape[-1], out.data_ptr())
    return out


def silu_mul_(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """`gate` becomes silu(gate) * up."""
    _ready().qwa_silu_mul(gate.data_ptr(), up.data_ptr(), gate.numel(), gate.data_ptr())
    return gate


def rotate_(step: Step, x: torch.Tensor) -> torch.Tensor:
    """RoPE in place on x [B, Q, heads * D], queries or keys."""
    _ready().qwa_rotate(step.pointer, x.shape[-1] // step.struct.head_dim, x.data_ptr())
    return x


def write_kv(step: Step, kv: int, keys: torch.Tensor, values: torch.Tensor) -> None:
    """keys (rotated) and values [B, Q, kv_heads * D] into the cache at address `kv`, which has room for them."""
    _ready().qwa_write_kv(step.pointer, kv, keys.data_ptr(), values.data_ptr())


def attention(step: Step, kv: int, q: torch.Tensor) -> torch.Tensor:
    """q (rotated) [B, Q, heads * D] over the cache at address `kv`, causally: [B, Q, heads * D]."""
    out = torch.empty_like(q)
    _ready().qwa_attention(step.pointer, kv, q.data_ptr(), out.data_ptr())
    return out


def layers_(structs: int, kvs: int, count: int, step: Step, x: torch.Tensor) -> torch.Tensor:
    """x [B, Q, H] through `count` layers in place, B * Q at most SMALL_ROWS.

    `structs` and `kvs` are the addresses of the first LayerStruct and KVStruct; the caches have room.
    """
    assert x.is_contiguous() and x.numel() // x.shape[-1] <= SMALL_ROWS
    _ready().qwa_layers(structs, kvs, count, step.pointer, x.data_ptr())
    return x


def _ready() -> ctypes.CDLL:
    found = library.load().library
    assert found is not None
    library.follow_torch(found)
    return found
