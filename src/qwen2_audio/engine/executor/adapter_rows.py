"""What adapters by request add to a pass: each row of a Linear's output gets the low-rank part of its own adapter.

    rows of a pass     a a a | . . | b | a a        y = W x for all rows in one product, as without adapters
    added              to rows 0-2, 6-7: B_a A_a x      to row 5: B_b A_b x      to rows 3-4: nothing

Hooks add it. They are there only during a pass that needs them, so that other passes run as if there were no adapters,
native code included. N new positions in a pass, L of them with logits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ...lora import low_rank
from ...native.bound_weights import ADDS
from ..model_interface import EngineModel

if TYPE_CHECKING:
    from ..adapters import LoadedAdapter, Pair

HEAD = "language_model.lm_head"  # the one Linear that sees L rows instead of N
Added = tuple["Pair", torch.Tensor | None]  # A and B, and the rows that get it: int64 [n], or None for all


def of_encoder(model: EngineModel, adapter: LoadedAdapter | None) -> AbstractContextManager[None]:
    """In this context, this thread's encoder and projector of `model` compute with `adapter`."""
    if adapter is None or not adapter.encoder:
        return nullcontext()
    return _hooked(model, {path: [(pair, None)] for path, pair in adapter.encoder.items()})


def of_language_model(
    model: EngineModel, adapters: Sequence[LoadedAdapter | None], counts: Sequence[int], kept: Sequence[int]
) -> AbstractContextManager[None]:
    """In this context, this thread's language model of `model` computes each sequence with its adapter.

    Args:
        adapters: of each of S sequences of the pass.
        counts: new positions of each, N together.
        kept: positions of each that get logits, L together.
    """
    rows, kept_rows = _rows(adapters, counts, model.device), _rows(adapters, kept, model.device)
    added: dict[str, list[Added]] = {}
    for adapter, of_adapter in rows.items():
        for path, pair in adapter.language_model.items():
            wanted = of_adapter if path != HEAD else kept_rows[adapter]
            if wanted is None or len(wanted):
                added.setdefault(path, []).append((pair, wanted))
    return _hooked(model, added)


def _rows(
    adapters: Sequence[LoadedAdapter | None], counts: Sequence[int], device: torch.device
) -> dict[LoadedAdapter, torch.Tensor | None]:
    """For each adapter the rows of its sequences, int64 [n], in order; None where these are all rows."""
    found: dict[LoadedAdapter, list[int]] = {}
    start = 0
    for adapter, count in zip(adapters, counts, strict=True):
        if adapter is not None:
            found.setdefault(adapter, []).extend(range(start, start + count))
        start += count
    return {
        adapter: None if start and len(rows) == start else torch.tensor(rows, dtype=torch.int64, device=device)
        for adapter, rows in found.items()
    }


@contextmanager
def _hooked(model: EngineModel, added: Mapping[str, Sequence[Added]]) -> Iterator[None]:
    hooks = []
    try:
        for path, parts in added.items():
            hooks.append(model.get_submodule(path).register_forward_hook(_adding(parts, threading.get_ident())))
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _adding(parts: Sequence[Added], thread: int) -> Callable[[nn.Module, Any, torch.Tensor], torch.Tensor | None]:
    def add(module: nn.Module, inputs: tuple[torch.Tensor], out: torch.Tensor) -> torch.Tensor | None:
        if threading.get_ident() != thread:  # somebody else's pass through the same model
            return None
        (x,) = inputs
        for pair, rows in parts:
            chosen = x if rows is None else x.index_select(-2, rows)
            delta = low_rank(chosen, pair.down, pair.up, pair.scaling).to(out.dtype)
            out = out + delta if rows is None else out.index_add(-2, rows, delta)
        return out

    setattr(add, ADDS, True)
    return add
