"""Results of the forward passes: dataclasses that also support `out["logits"]` and `out[0]`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch

from .cache import KVCache
from .paged import DecodeBatch, PagedAttentionBatch

Tensors = tuple[torch.Tensor, ...]


@dataclass
class Output:
    """Base of the results. As in the reference, the fields that are not None can be read by name and by index."""

    def items(self) -> list[tuple[str, Any]]:
        named = ((f.name, getattr(self, f.name)) for f in fields(self))
        return [(name, value) for name, value in named if value is not None]

    def keys(self) -> list[str]:
        return [name for name, _ in self.items()]

    def values(self) -> list[Any]:
        return [value for _, value in self.items()]

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(self.values())

    def get(self, key: str, default: Any = None) -> Any:
        return dict(self.items()).get(key, default)

    # Without these two methods, `"loss" in out` would compare the string with the tensors and always be False.
    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, key: object) -> bool:
        return key in self.keys()

    def __len__(self) -> int:
        return len(self.keys())

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            if key not in self.keys():
                raise KeyError(key)
            return getattr(self, key)
        return self.to_tuple()[key]


@dataclass
class EncoderOutput(Output):
    """The encoder's result for full windows."""

    last_hidden_state: torch.Tensor  # [A, window // 4, d]
    hidden_states: Tensors | None = None  # before the first layer and after each: [A, window // 2, d]
    attentions: Tensors | None = None  # [A, heads, window // 2, window // 2], eager only


@dataclass
class LanguageModelOutput(Output):
    """The language model's result."""

    logits: torch.Tensor | None = None  # [B, kept positions, V]; None without a head
    last_hidden_state: torch.Tensor | None = None  # [B, q, H]
    past_key_values: KVCache | PagedAttentionBatch | DecodeBatch | None = None
    hidden_states: Tensors | None = None  # before the first layer and after each; the last one after the final norm
    attentions: Tensors | None = None  # [B, heads, q, kv], eager only


@dataclass
class Qwen2AudioModelOutput(Output):
    """The result of the model without its head. `attention_mask` and `labels` are those of the expanded prompt."""

    last_hidden_state: torch.Tensor
    past_key_values: KVCache | PagedAttentionBatch | DecodeBatch | None = None
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None
    attention_mask: torch.Tensor | None = None
    labels: torch.Tensor | None = None


@dataclass
class Qwen2AudioCausalLMOutput(Output):
    """The result of the complete model, with the loss when labels were given."""

    loss: torch.Tensor | None = None  # scalar
    logits: torch.Tensor | None = None  # [B, kept positions, V]
    past_key_values: KVCache | PagedAttentionBatch | DecodeBatch | None = None
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None
    attention_mask: torch.Tensor | None = None  # [B, T] of the expanded prompt
