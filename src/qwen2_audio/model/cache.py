"""The KV cache: per layer one buffer for keys and one for values, written in place.

    capacity 8, length 3:   [k0 k1 k2 . . . . .]
    update with 2 new       [k0 k1 k2 k3 k4 . . .]   returns the view [k0 .. k4]

An update within the capacity copies nothing; a full buffer grows by blocks of 256 positions.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch

from ..checkpoint.config import Qwen2Config
from ..errors import ConfigError
from .attention import AttentionMask, attend

BLOCK = 256  # positions; the capacity of a cache that has grown is a multiple of this


class CachedLayer(NamedTuple):
    """What a cache holds of one layer."""

    keys: torch.Tensor  # [B, kv_heads, length, head_dim]
    values: torch.Tensor


class KVCache:
    """Keys (after RoPE) and values of every layer, `[B, kv_heads, capacity, head_dim]`."""

    def __init__(
        self,
        config: Qwen2Config,
        batch: int,
        *,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        capacity: int = 0,
    ) -> None:
        shape = (batch, config.num_key_value_heads, capacity, config.head_dim)
        layers = range(config.num_hidden_layers)
        self._keys = [torch.empty(shape, dtype=dtype, device=device) for _ in layers]
        self._values = [torch.empty(shape, dtype=dtype, device=device) for _ in layers]
        self._lengths = [0] * config.num_hidden_layers

    @property
    def length(self) -> int:
        """Cached positions; between two forward passes the same for all layers."""
        return self._lengths[-1]

    @property
    def batch(self) -> int:
        return int(self._keys[0].shape[0])

    @property
    def capacity(self) -> int:
        return int(self._keys[0].shape[2])

    @property
    def nbytes(self) -> int:
        """Bytes allocated for the keys and values of all layers."""
        return sum(t.numel() * t.element_size() for t in (*self._keys, *self._values))

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """The reference library's name for `length`."""
        return self._lengths[layer_idx]

    def __len__(self) -> int:
        """The number of layers, as in the reference library."""
        return len(self._keys)

    def __bool__(self) -> bool:
        return True  # a cache without positions is one too

    @property
    def layers(self) -> list[CachedLayer]:
        """Keys and values as they are stored: views, valid until the next update."""
        stored = zip(self._keys, self._values, self._lengths, strict=True)
        return [CachedLayer(keys[:, :, :length], values[:, :, :length]) for keys, values, length in stored]

    def update(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Append `[B, kv_heads, q, head_dim]`; returns views of all positions, `[B, kv_heads, length, head_dim]`."""
        start = self._lengths[layer]
        end = start + key.shape[2]
        if end > self._keys[layer].shape[2]:
            self._grow(layer, end)
        self._keys[layer][:, :, start:end] = key
        self._values[layer][:, :, start:end] = value
        self._lengths[layer] = end
        return self._keys[layer][:, :, :end], self._values[layer][:, :, :end]

    def attend(
        self,
        layer: int,
        implementation: str,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        visible: AttentionMask,
        **options: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Append k and v to `layer`, and attend to all its positions; shapes as in `attention.attend`."""
        k, v = self.update(layer, k, v)
        return attend(implementation, q, k, v, visible, **options)

    def reorder(self, rows: torch.Tensor) -> None:
        """Replace row i by the old row `rows[i]`. `rows`, int64 `[B']`, may permute, drop and repeat rows."""
        for buffers in (self._keys, self._values):
            for layer, old in enumerate(buffers):
                length = self._lengths[layer]
                new = old.new_empty((rows.numel(), *old.shape[1:]))
                new[:, :, :length] = old[:, :, :length].index_select(0, rows.to(old.device))
                buffers[layer] = new

    def copy(self, length: int, capacity: int) -> KVCache:
        """A new cache of `capacity` positions with the first `length` positions of this one."""
        other = copy.copy(self)
        other._keys = [resized(buffer, length, capacity) for buffer in self._keys]
        other._values = [resized(buffer, length, capacity) for buffer in self._values]
        other._lengths = [length] * len(self._lengths)
        return other

    def crop(self, length: int) -> None:
        """Drop the positions from `length` on."""
        self._lengths = [min(length, n) for n in self._lengths]

    def _grow(self, layer: int, needed: int) -> None:
        capacity = -(-needed // BLOCK) * BLOCK
        for buffers in (self._keys, self._values):
            buffers[layer] = resized(buffers[layer], self._lengths[layer], capacity)


def check_cache(cache: object) -> None:
    """Raises ConfigError for a cache of another library, such as transformers' DynamicCache."""
    if cache is not None and not isinstance(cache, KVCache):
        raise ConfigError(
            f"past_key_values is a {type(cache).__name__}; expected a KVCache, which forward and generate return and "
            "model.new_cache() makes."
        )


def resized(old: torch.Tensor, length: int, capacity: int) -> torch.Tensor:
    """A copy of a buffer [B, kv_heads, S, D] with `capacity` positions, of which the first `length` are filled."""
    new = old.new_empty((*old.shape[:2], capacity, old.shape[3]))
    new[:, :, :length] = old[:, :, :length]
    return new
