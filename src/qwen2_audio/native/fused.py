"""What stands between the matrix products, in native code: the calls of csrc/qwa.h on torch tensors.

B rows of a batch, Q new positions of each, D head width, H hidden width; in a packed step B is 1 and Q is N, the new
positions of all sequences. Tensors are float32 and contiguous, on the CPU: a call raises ValueError for others, and
CapacityError where the system refuses it working memory.
"""

from __future__ import annotations

import ctypes
import logging
from functools import cache
from operator import add

import torch

from ..checkpoint.config import Qwen2Config
from ..model.paged import PagedAttentionBatch
from . import library
from .library import check_tensor
from .structs import LayerStruct, StepStruct

SMALL_ROWS = 32  # up to so many rows go through all layers in one call
KV_DTYPES = {"float32": 0, "float16": 1, "int8": 2}  # QWA_FLOAT32, QWA_FLOAT16, QWA_INT8

logger = logging.getLogger(__name__)


@cache
def kernels() -> ctypes.CDLL | None:
    """The library with these calls, checked once a process; None if there is none or a call differs from torch.

    Raises ConfigError: $QWEN2_AUDIO_ISA names an instruction set that cannot be used.
    """
    from .self_test_fused import self_test

    loaded = library.load().library
    if loaded is None:
        return None
    declare(loaded)
    wrong = self_test(loaded)
    if wrong is not None:
        logger.warning("The native %s is refused: it differs from torch. Torch computes it.", wrong)
        return None
    return loaded


def declare(loaded: ctypes.CDLL) -> None:
    """Declare the signatures of these calls to ctypes."""
    pointer, i64 = ctypes.c_void_p, ctypes.c_int64
    loaded.qwa_dense.argtypes = [pointer, pointer, i64, i64, pointer, i64, pointer]
    loaded.qwa_rms_norm.argtypes = [pointer, pointer, ctypes.c_float, i64, i64, pointer]
    loaded.qwa_silu_mul.argtypes = [pointer, pointer, i64, pointer]
    loaded.qwa_rotate.argtypes = [pointer, ctypes.c_int, pointer]
    loaded.qwa_write_kv.argtypes = [pointer, pointer, pointer, pointer]
    loaded.qwa_attention.argtypes = [pointer, pointer, pointer, pointer]
    loaded.qwa_layers.argtypes = [pointer, pointer, ctypes.c_int, pointer, pointer]
    for name in ("rms_norm", "silu_mul", "rotate", "write_kv"):
        getattr(loaded, f"qwa_{name}").restype = None
    for name in ("dense", "attention", "layers"):
        getattr(loaded, f"qwa_{name}").errcheck = library.raise_on_failure


class Step:
    """What all layers of a forward pass share, as `qwa_step`. Keeps its tensors alive.

    Attributes: `rows`, the new positions of all rows together; `pointer`, the address of the struct.
    """

    rows: int
    struct: StepStruct
    pointer: int

    def __init__(
        self,
        config: Qwen2Config,
        shape: tuple[int, int, int],
        rope: tuple[torch.Tensor, torch.Tensor],
        keys: torch.Tensor | None = None,
        kv_dtype: str = "float32",
    ) -> None:
        """`shape`: rows, new positions, positions in the cache before. `rope`: cos and sin [B or 1, 1, Q, D].

        `keys`: bool [B, cached + Q], False is padding; None: nothing is padded. Raises RuntimeError: a shape that does
        not broadcast to these.
        """
        batch, queries, past = shape
        dim = config.head_dim
        # What broadcasts for torch is written out; what does not fit fails here, not in native memory.
        cosine, sine = (part.expand(len(part) if len(part) == 1 else batch, 1, queries, dim) for part in rope)
        cosine, sine = cosine.contiguous(), sine.contiguous()
        check_tensor("the cosine of RoPE", cosine, len(cosine) * queries * dim)
        check_tensor("the sine of RoPE", sine, len(cosine) * queries * dim)
        mask = None if keys is None else keys.expand(batch, past + queries).contiguous()
        if mask is not None:
            check_tensor("the padding mask", mask, batch * (past + queries), torch.bool)
        self._tensors: tuple[torch.Tensor | None, ...] = (cosine, sine, mask)
        self.rows = batch * queries
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
    """What all layers of a pass over a paged cache share."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        step: PagedAttentionBatch,
        rope: tuple[torch.Tensor, torch.Tensor],
        kv_dtype: str,
    ) -> None:
        """`shape`: heads, kv_heads, head_dim; `rope`: cos and sin [1, 1, N, D]; `kv_dtype`: that of the storage.

        Raises RuntimeError: `rope` does not broadcast to N rows; ValueError: the pass does not fit its tables or the
        storage has other heads.
        """
        heads, kv_heads, dim = shape
        self.rows = step.starts[-1]
        _check_tables(step, (kv_heads, step.storage.block, dim))
        cosine, sine = (part.expand(1, 1, self.rows, dim).contiguous() for part in rope)
        check_tensor("the cosine of RoPE", cosine, self.rows * dim)
        check_tensor("the sine of RoPE", sine, self.rows * dim)
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
            num_computed=step.num_computed.buffer_info()[0],
            table_stride=step.width,
            block=step.storage.block,
        )
        self.pointer = ctypes.addressof(self.struct)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """weight * (x / rms(x)) over the last dimension of x [..., H], weight [H]."""
    x, width = x.contiguous(), x.shape[-1]
    check_tensor("x of rms_norm", x, x.numel())
    check_tensor("weight of rms_norm", weight, width)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    _ready().qwa_rms_norm(x.data_ptr(), weight.data_ptr(), eps, x.numel() // width, width, out.data_ptr())
    return out


def silu_mul_(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """`gate` becomes silu(gate) * up."""
    check_tensor("gate of silu_mul_", gate, gate.numel())
    check_tensor("up of silu_mul_", up, gate.numel())
    _ready().qwa_silu_mul(gate.data_ptr(), up.data_ptr(), gate.numel(), gate.data_ptr())
    return gate


def rotate_(step: Step, x: torch.Tensor) -> torch.Tensor:
    """RoPE in place on x [B, Q, heads * D], queries or keys."""
    heads = x.shape[-1] // step.struct.head_dim
    check_tensor("x of rotate_", x, step.rows * heads * step.struct.head_dim)
    _ready().qwa_rotate(step.pointer, heads, x.data_ptr())
    return x


def write_kv(step: Step, kv: int, keys: torch.Tensor, values: torch.Tensor) -> None:
    """Write keys (rotated) and values [B, Q, kv_heads * D] to the cache whose KVStruct is at address `kv`.

    The cache has space for them behind the positions that it holds.
    """
    count = step.rows * step.struct.kv_heads * step.struct.head_dim
    check_tensor("keys of write_kv", keys, count)
    check_tensor("values of write_kv", values, count)
    _ready().qwa_write_kv(step.pointer, kv, keys.data_ptr(), values.data_ptr())


def attention(step: Step, kv: int, q: torch.Tensor) -> torch.Tensor:
    """q (rotated) [B, Q, heads * D] attends causally to the cache whose KVStruct is at address `kv`: like q."""
    check_tensor("q of attention", q, step.rows * step.struct.heads * step.struct.head_dim)
    out = torch.empty_like(q)
    _ready().qwa_attention(step.pointer, kv, q.data_ptr(), out.data_ptr())
    return out


def layers_(structs: int, kvs: int, count: int, step: Step, x: torch.Tensor) -> torch.Tensor:
    """x [B, Q, H] through `count` layers in place, B * Q at most SMALL_ROWS.

    `structs` and `kvs` are the addresses of the first LayerStruct and KVStruct; the caches have space for the new
    positions.
    """
    first, shape = LayerStruct.from_address(structs), step.struct
    check_tensor("x of layers_", x, step.rows * first.q.in_features)
    widths = (first.q.out_features, first.k.out_features)
    expected = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim)
    if step.rows > SMALL_ROWS or widths != expected:
        raise ValueError(
            f"layers_ got {step.rows} rows for layers whose queries and keys have widths {widths}; expected at most "
            f"{SMALL_ROWS} rows, and widths {expected} as the step has heads."
        )
    _ready().qwa_layers(structs, kvs, count, step.pointer, x.data_ptr())
    return x


def _check_tables(step: PagedAttentionBatch, shape: tuple[int, int, int]) -> None:
    """`shape`: kv_heads, positions of a block, head_dim, as the storage has to have them."""
    sequences, capacity = len(step.query_lens), step.width * step.storage.block
    stored = step.storage.keys[0].shape[1:]
    if stored != shape:
        raise ValueError(
            f"The paged cache has blocks of {tuple(stored)} (kv_heads, positions, head width); expected {shape}."
        )
    lengths = len(step.tables), len(step.starts), len(step.num_computed)
    if lengths != (sequences * step.width, sequences + 1, sequences) or step.tables.itemsize != 4:
        raise ValueError(
            f"A pass of {sequences} sequences has {lengths} numbers of {step.tables.itemsize} bytes in tables, starts "
            f"and num_computed; expected {(sequences * step.width, sequences + 1, sequences)} of 4 bytes."
        )
    longest = max(map(add, step.num_computed, step.query_lens))
    if longest > capacity:
        raise ValueError(f"A sequence has {longest} positions and its block table holds {capacity}; add blocks to it.")


def _ready() -> ctypes.CDLL:
    loaded = library.load().library
    assert loaded is not None
    library.follow_torch(loaded)
    return loaded
