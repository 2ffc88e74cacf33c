"""Blocks of a paged KV cache that native attention reads where they lie."""

from __future__ import annotations

import ctypes
from typing import Any

import torch

from ..checkpoint.config import Qwen2Config
from ..model.attention import AttentionMask
from ..model.language_model import Qwen2LanguageModel
from ..model.paged import BLOCK, PagedAttentionBatch, PagedStorage
from . import fused
from .cache import STORED, check_kv_dtype
from .structs import KVStruct

LEAST_BLOCK, MOST_BLOCK = 16, 256  # native attention reads chunks of 256 positions, in whole blocks


class NativePagedStorage(PagedStorage):
    """`PagedStorage` for float32 models on the CPU, stored in `kv_dtype` as a NativeKVCache is."""

    def __init__(self, config: Qwen2Config, blocks: int, *, block: int = BLOCK, kv_dtype: str = "float16") -> None:
        """`block`: a power of two from 16 to 256. Raises ConfigError: an unknown `kv_dtype`."""
        assert LEAST_BLOCK <= block <= MOST_BLOCK and block.bit_count() == 1
        super().__init__(config, blocks, block=block, dtype=STORED[check_kv_dtype(kv_dtype)])
        self.kv_dtype = kv_dtype
        sides = zip(self.keys, self.values, strict=True)
        structs = [KVStruct(k.data_ptr(), v.data_ptr(), None, None, 0) for k, v in sides]
        for struct, k, v in zip(structs, self.key_scales, self.value_scales, strict=False):
            struct.key_scales, struct.value_scales = k.data_ptr(), v.data_ptr()
        self._structs = (KVStruct * len(structs))(*structs)

    def attend(
        self,
        step: PagedAttentionBatch,
        layer: int,
        implementation: str,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        visible: AttentionMask,
        **options: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As `PagedStorage.attend`: in native code where that computes the same, for layers that are not native."""
        if implementation != "sdpa" or q.dtype != torch.float32 or q.requires_grad or fused.kernels() is None:
            return super().attend(step, layer, implementation, q, k, v, visible, **options)
        heads, rows, dim = q.shape[1:]
        packed = step.native
        if packed is None:
            unused = torch.empty(1, 1, rows, dim)  # q and k have been rotated already
            shape = (heads, k.shape[1], dim)
            packed = step.native = fused.PackedStep(shape, step, (unused, unused), self.kv_dtype)
        query, key, value = (t[0].transpose(0, 1).reshape(1, rows, -1).contiguous() for t in (q, k, v))
        fused.write_kv(packed, self.address(layer), key, value)
        out = fused.attention(packed, self.address(layer), query)
        return out.view(rows, heads, dim).transpose(0, 1)[None], None

    def address(self, layer: int = 0) -> int:
        """The address of a layer's KVStruct, which those of the next layers follow."""
        return ctypes.addressof(self._structs) + layer * ctypes.sizeof(KVStruct)


def storage_for(language_model: Qwen2LanguageModel, blocks: int) -> PagedStorage:
    """A paged cache for a model: for native attention, if the model is float32 on the CPU and there are kernels."""
    like = language_model.model.norm.weight
    overrides = type(language_model).new_paged is not Qwen2LanguageModel.new_paged  # it knows what its layers can read
    if overrides or like.device.type != "cpu" or like.dtype != torch.float32 or fused.kernels() is None:
        return language_model.new_paged(blocks)
    return NativePagedStorage(language_model.cached, blocks, kv_dtype="float32")
