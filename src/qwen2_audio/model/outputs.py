"""Results of the forward passes: dataclasses that are also dicts of those of their fields that are not None.

As in the reference, `out.logits`, `out["logits"]`, `out[0]` and `out[:2]` read the same values. Trainer, accelerate and
peft ask for a dict; torch.export and DDP take a result apart, because each class is registered as a pytree node.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Self

import torch
from torch.utils import _pytree as pytree

from .cache import KVCache
from .paged import DecodeBatch, PagedAttentionBatch

Tensors = tuple[torch.Tensor, ...]


class Output(dict[str, Any]):
    """Base of the results. Setting a field changes the dict too; a field that is None is not in it."""

    __dataclass_fields__: dict[str, Any]  # by the decorator of each subclass

    def __init_subclass__(cls) -> None:
        pytree.register_pytree_node(
            cls,
            lambda out: ([*out.values()], [*out]),
            lambda values, names: cls.from_items(zip(names, values, strict=True)),
            serialized_type_name=f"{cls.__module__}.{cls.__name__}",
            flatten_with_keys_fn=lambda out: ([(pytree.MappingKey(name), out[name]) for name in out], [*out]),
        )

    def __post_init__(self) -> None:
        # accelerate and DataParallel make the result of a conversion from (name, value) pairs alone.
        first = next(iter(self.__dataclass_fields__))
        if isinstance(self.get(first), Mapping | Iterator):
            items = dict(self[first])
            setattr(self, first, None)
            for name, value in items.items():
                self[name] = value

    @classmethod
    def from_items(cls, items: Iterable[tuple[str, Any]]) -> Self:
        """A result whose other fields are None."""
        return cls(**{next(iter(cls.__dataclass_fields__)): None, **dict(items)})

    def to_tuple(self) -> tuple[Any, ...]:
        """The values that are not None."""
        return tuple(self.values())

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in self.__dataclass_fields__:
            if value is None:
                super().pop(name, None)
            else:
                super().__setitem__(name, value)

    def __setitem__(self, name: str, value: Any) -> None:
        if name not in self.__dataclass_fields__:
            raise KeyError(f"{type(self).__name__} has no field {name!r}.")
        setattr(self, name, value)

    def __getitem__(self, key: str | int | slice) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(f"The fields of a {type(self).__name__} are fixed; set one to None instead.")

    __delitem__ = clear = pop = popitem = setdefault = update = _refuse


def chosen(option: bool | None, *configs: Any, name: str) -> bool:
    """An option of a forward call: as passed, else whether any of `configs` has it set."""
    return any(getattr(config, name) for config in configs) if option is None else option


def as_asked(out: Output, return_dict: bool | None, config: Any) -> Any:
    """`out`, or a tuple of its values where `return_dict`, or without it `config`, says so."""
    return out if (config.return_dict if return_dict is None else return_dict) else out.to_tuple()


@dataclass
class EncoderOutput(Output):
    """The encoder's result for full windows."""

    last_hidden_state: torch.Tensor  # [A, window // 4, d]
    hidden_states: Tensors | None = None  # before the first layer and after each: [A, window // 2, d]
    attentions: Tensors | None = None  # [A, heads, window // 2, window // 2], eager only


@dataclass
class AudioFeatures(Output):
    """Clips, encoded as whole windows, and projected without their padding."""

    last_hidden_state: torch.Tensor  # [A, window // 4, d]
    pooler_output: torch.Tensor | None = None  # [sum of N_a, H]
    hidden_states: Tensors | None = None  # as in EncoderOutput
    attentions: Tensors | None = None


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
