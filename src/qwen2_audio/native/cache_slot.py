"""Where one pass writes its keys and values: in a native cache, unpaged or paged."""

from __future__ import annotations

from dataclasses import dataclass

from ..checkpoint.config import Qwen2Config
from ..model.attention import AttentionMask
from ..model.language_model import Cache, Rope
from ..model.paged import PagedAttentionBatch
from . import fused
from .cache import NativeKVCache
from .paged import NativePagedStorage


@dataclass(frozen=True)
class CacheSlot:
    """Where native code writes the keys and values of a pass, from one layer on, and how it attends to them."""

    step: fused.Step
    address: int  # of the layer's KVStruct; those of the next layers follow it
    layer: int
    count: int  # new positions of a row
    cache: NativeKVCache | None  # to be told of new positions; a paged cache need not be told

    @classmethod
    def reserve(
        cls,
        config: Qwen2Config,
        cache: Cache | None,
        layer: int,
        shape: tuple[int, int],
        rope: Rope,
        visible: AttentionMask,
    ) -> CacheSlot | None:
        """Reserve Q new positions of B rows, `shape` (B, Q), in `layer` and the layers behind it.

        None: the cache is not a native one, or it has other rows.
        """
        batch, count = shape
        if isinstance(cache, NativeKVCache) and cache.batch == batch:
            past = cache.get_seq_length(layer)
            cache.reserve(past + count)
            step = fused.Step(config, (batch, count, past), rope, visible.keys, cache.kv_dtype)
            return cls(step, cache.address(layer), layer, count, cache)
        if isinstance(cache, PagedAttentionBatch) and isinstance(cache.storage, NativePagedStorage) and batch == 1:
            if sum(cache.query_lens) != count:
                return None
            heads = (config.num_attention_heads, config.num_key_value_heads, config.head_dim)
            packed = fused.PackedStep(heads, cache, rope, cache.storage.kv_dtype)
            return cls(packed, cache.storage.address(layer), layer, count, None)
        return None

    def advance(self, layers: int = 1) -> None:
        """Count the new positions, once native code has written them to `layers` layers."""
        if self.cache is not None:
            self.cache.advance(self.layer, self.count, layers)
