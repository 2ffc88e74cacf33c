"""A KV cache's contents that were never computed."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from qwen2_audio.checkpoint.config import Qwen2Config

_DRAWN_POSITIONS = 64  # the others repeat them


def random_past(config: Qwen2Config, length: int) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """(layer, keys, values) of `length` positions, the same at every call; float32 [1, kv_heads, length, head_dim].

    How long a decode step takes does not depend on what the cache holds, and computing it would take minutes.
    """
    generator = torch.Generator().manual_seed(length)
    repeats = -(-length // _DRAWN_POSITIONS)
    for layer in range(config.num_hidden_layers):
        block = torch.randn(2, 1, config.num_key_value_heads, _DRAWN_POSITIONS, config.head_dim, generator=generator)
        keys, values = block.repeat(1, 1, 1, repeats, 1)[..., :length, :]
        yield layer, keys, values
