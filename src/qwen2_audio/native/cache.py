"""A KV cache that stores 16 or 8 bits a number, and that native attention reads where it lies.

    float32   4 bytes a number   exact
    float16   2 bytes            relative error at most 2^-11 (0.05 %), for numbers between 6e-5 and 65504
    int8      1 byte, and a float32 scale for each head and position
                                 error at most 1/254 (0.4 %) of the largest number of its head and position

Prefill, too, and the readable path compute with the numbers as they are stored, in float32. So the result is the same
whether a prompt is computed in one pass or in several.
"""

from __future__ import annotations

import ctypes

import torch

from ..checkpoint.config import Qwen2Config
from ..errors import ConfigError
from ..model.cache import BLOCK, KVCache, resized
from ..model.paged import quantize_heads
from .structs import KVStruct

STORED = {"float16": torch.float16, "float32": torch.float32, "int8": torch.int8}


def check_kv_dtype(name: str) -> str:
    """`name`, if a cache can be stored in that dtype. Raises ConfigError if not."""
    if name not in STORED:
        raise ConfigError(f"kv_cache is {name!r}; expected one of {', '.join(STORED)}.")
    return name


class NativeKVCache(KVCache):
    """`KVCache` for float32 models on the CPU. Stored `[B, kv_heads, capacity, head_dim]` in `kv_dtype`."""

    def __init__(self, config: Qwen2Config, batch: int, *, kv_dtype: str = "float16", capacity: int = 0) -> None:
        """Raises ConfigError: an unknown `kv_dtype`."""
        super().__init__(config, batch, dtype=STORED[check_kv_dtype(kv_dtype)], capacity=capacity)
        self.kv_dtype = kv_dtype
        shape = (batch, config.num_key_value_heads, capacity, 1)
        scaled = range(config.num_hidden_layers if kv_dtype == "int8" else 0)
        self._key_scales = [torch.empty(shape) for _ in scaled]
        self._value_scales = [torch.empty(shape) for _ in scaled]
        self._structs: ctypes.Array[KVStruct] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes allocated for keys, values and scales of all layers."""
        return super().nbytes + sum(4 * t.numel() for t in (*self._key_scales, *self._value_scales))

    def update(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Append `[B, kv_heads, q, head_dim]`. Returns all positions `[B, kv_heads, length, head_dim]` in float32."""
        start = self._lengths[layer]
        end = start + key.shape[2]
        if end > self._keys[layer].shape[2]:
            self._grow(layer, end)
        sides = zip((key, value), (self._keys, self._values), (self._key_scales, self._value_scales), strict=True)
        for new, stored, scales in sides:
            if scales:
                codes, scales[layer][:, :, start:end] = quantize_heads(new)
                stored[layer][:, :, start:end] = codes
            else:
                stored[layer][:, :, start:end] = new
        self._lengths[layer] = end
        return self._read(self._keys, self._key_scales, layer), self._read(self._values, self._value_scales, layer)

    def reserve(self, length: int) -> None:
        """Grow every layer's buffers to hold `length` positions."""
        for layer, keys in enumerate(self._keys):
            if length > keys.shape[2]:
                self._grow(layer, length)

    def advance(self, layer: int, count: int, layers: int = 1) -> None:
        """Count `count` positions that native code has written to `layers` layers from `layer` on, as reserved."""
        for i in range(layer, layer + layers):
            self._lengths[i] += count
            assert self._lengths[i] <= self._keys[i].shape[2]

    def address(self, layer: int = 0) -> int:
        """The address of a layer's KVStruct, which those of the next layers follow. Valid until the buffers change."""
        if self._structs is None:
            sides = zip(self._keys, self._values, strict=True)
            structs = [KVStruct(k.data_ptr(), v.data_ptr(), None, None, k.shape[2]) for k, v in sides]
            for struct, k, v in zip(structs, self._key_scales, self._value_scales, strict=False):
                struct.key_scales, struct.value_scales = k.data_ptr(), v.data_ptr()
            self._structs = (KVStruct * len(structs))(*structs)
        return ctypes.addressof(self._structs) + layer * ctypes.sizeof(KVStruct)

    def reorder(self, rows: torch.Tensor) -> None:
        """Row i becomes what row `rows[i]` was. `rows` is int64 `[B']`: a permutation, a choice, or repeats."""
        if torch.equal(rows.cpu(), torch.arange(self.batch)):
            return
        super().reorder(rows)
        for scales in (self._key_scales, self._value_scales):
            for layer, old in enumerate(scales):
                scales[layer] = old.index_select(0, rows)
        self._structs = None

    def copy(self, length: int, capacity: int) -> NativeKVCache:
        """Another cache with the first `length` positions, and buffers for `capacity` positions in all."""
        other = super().copy(length, capacity)
        assert isinstance(other, NativeKVCache)
        for name in ("_key_scales", "_value_scales"):
            setattr(other, name, [resized(t, length, capacity) for t in getattr(self, name)])
        other._structs = None
        return other

    def _read(self, stored: list[torch.Tensor], scales: list[torch.Tensor], layer: int) -> torch.Tensor:
        end = self._lengths[layer]
        wide = stored[layer][:, :, :end].float()
        return wide.mul_(scales[layer][:, :, :end]) if scales else wide

    def _grow(self, layer: int, needed: int) -> None:
        super()._grow(layer, needed)
        for scales in (self._key_scales, self._value_scales):
            if scales:
                scales[layer] = resized(scales[layer], self._lengths[layer], -(-needed // BLOCK) * BLOCK)
        self._structs = None
