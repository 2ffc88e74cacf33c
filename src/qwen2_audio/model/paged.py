"""The KV cache of many sequences in blocks of one size, and a forward pass over some: packed, or of fixed shape.

    sequence a, 70 positions, blocks of 32:   table [4, 0, 7]    position 40 lies in block 0 at 8
    sequence b shares its first block:        table [4, 2]

S sequences in a pass, N new positions of all of them together, packed one after the other; D head width.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch

from ..checkpoint.config import Qwen2Config
from .attention import AttentionMask, attend

BLOCK = 32  # positions
TINY = 1e-30  # heads whose numbers are all below this are stored as zeros: the reciprocal would overflow


class PagedStorage:
    """Keys (after RoPE) and values of every layer, `[blocks, kv_heads, block, head_dim]`.

    With `torch.int8` a number is a code times a scale, one for each head and position: `[blocks, kv_heads, block, 1]`.
    There is one block more than `blocks`, number `scratch`: rows of a DecodeBatch that stand for nobody write there.
    """

    def __init__(
        self,
        config: Qwen2Config,
        blocks: int,
        *,
        block: int = BLOCK,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.block, self.blocks, self.dtype = block, blocks, dtype
        self.scratch = blocks
        shape = (blocks + 1, config.num_key_value_heads, block, config.head_dim)
        layers = range(config.num_hidden_layers)
        # Zeros, not what memory holds: what lies behind a sequence's end is read and weighted with 0; 0 * NaN is NaN.
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in layers]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in layers]
        scaled = layers if dtype == torch.int8 else range(0)
        self.key_scales = [torch.zeros((*shape[:3], 1), device=device) for _ in scaled]
        self.value_scales = [torch.zeros((*shape[:3], 1), device=device) for _ in scaled]

    @property
    def buffers(self) -> list[torch.Tensor]:
        """Everything there is to a block, its number first in each."""
        return [*self.keys, *self.values, *self.key_scales, *self.value_scales]

    @property
    def nbytes(self) -> int:
        """Of `blocks` blocks."""
        return sum(buffer[: self.blocks].nbytes for buffer in self.buffers)

    def copy_block(self, source: int, target: int) -> None:
        """Make block `target` what block `source` is."""
        for buffer in self.buffers:
            buffer[target] = buffer[source]

    def clear(self, blocks: Sequence[int]) -> None:
        """Zeros in `blocks`: whatever a failed sequence left in them (NaN, say) harms nobody."""
        for buffer in self.buffers:
            buffer[list(blocks)] = 0

    def write(self, layer: int, slots: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        """Keep `[N, kv_heads, D]` at `slots`, int64 [N]: block * block size + place in it."""
        block, place = slots // self.block, slots % self.block
        sides = ((key, self.keys, self.key_scales), (value, self.values, self.value_scales))
        for new, stored, scales in sides:
            if scales:
                codes, scales[layer][block, :, place] = quantize_heads(new.float())
                stored[layer][block, :, place] = codes
            else:
                stored[layer][block, :, place] = new.to(self.dtype)

    def read(self, layer: int, tables: torch.Tensor, like: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the blocks `tables`, int64 [S, n]: `[S, kv_heads, n * block, D]` each, as `like`."""
        sides = ((self.keys, self.key_scales), (self.values, self.value_scales))
        key, value = (
            self._read(stored[layer], scales[layer] if scales else None, tables, like) for stored, scales in sides
        )
        return key, value

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
        """`PagedAttentionBatch.attend`: gathers blocks; sequences with equally many new positions attend together."""
        slots, groups = step.planned(q.device)
        self.write(layer, slots, k[0].transpose(0, 1), v[0].transpose(0, 1))
        out = torch.empty_like(q)
        for group in groups:
            key, value = self.read(layer, group.tables, q.dtype)
            heads = (q.shape[1], len(group.tables), -1, q.shape[3])
            queries = q[0][:, group.places].view(heads).transpose(0, 1)  # [S, heads, count, D]
            found, _ = attend(masked(implementation), queries, key, value, group.visible, **options)
            out[0][:, group.places] = found.transpose(0, 1).flatten(1, 2)
        return out, None

    def _read(
        self, stored: torch.Tensor, scales: torch.Tensor | None, tables: torch.Tensor, like: torch.dtype
    ) -> torch.Tensor:
        found = stored[tables].to(like)  # [S, n, kv_heads, block, D]
        if scales is not None:
            found = found * scales[tables].to(like)
        return found.transpose(1, 2).flatten(2, 3)


def masked(implementation: str) -> str:
    """What attends to gathered blocks: they go on behind a sequence's end, and flash_attention_2 takes no mask."""
    return "sdpa" if implementation == "flash_attention_2" else implementation


def quantize_heads(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x float32 [..., D] to int8 codes [..., D] and scales float32 [..., 1], x = codes * scales."""
    most = x.abs().amax(-1, keepdim=True)
    some = most > TINY
    codes = (x * torch.where(some, 127 / most, 0)).round_().to(torch.int8)
    return codes, torch.where(some, most / 127, 0)


class PagedAttentionBatch:
    """One forward pass over new positions of S sequences, packed as one row `[1, N]`; stands where a KVCache would.

    Attributes, int32 arrays as native code reads them: `tables` [S * width], `pasts` [S] positions already cached,
    `starts` [S + 1] where each sequence's new positions begin in the row. Arrays, as making a few tensors takes a good
    part of what a small model's decode step takes.
    """

    length = 0  # what the mask's maker counts as past: the pass makes its own

    def __init__(
        self, storage: PagedStorage, tables: Sequence[Sequence[int]], pasts: Sequence[int], counts: Sequence[int]
    ) -> None:
        self.storage = storage
        self.width = max(map(len, tables))
        padded: list[int] = []
        for table in tables:
            padded += table
            padded += [table[-1]] * (self.width - len(table))
        self.tables = array("i", padded)
        self.num_computed = array("i", pasts)
        self.starts = array("i", (0, *accumulate(counts)))
        self.query_lens = list(counts)
        self._plan: tuple[torch.Tensor, list[_Group]] | None = None
        self.native: Any = None  # what native code is told of the pass, made once

    @property
    def positions(self) -> torch.Tensor:
        """int64 [1, N]: the place of each new position in its sequence."""
        places = array("q")
        for past, count in zip(self.num_computed, self.query_lens, strict=True):
            places.extend(range(past, past + count))
        return torch.frombuffer(places, dtype=torch.int64).view(1, -1)

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
        """Keep k, v `[1, kv_heads, N, D]`, and let q `[1, heads, N, D]` see its own sequence up to itself: like q."""
        return self.storage.attend(self, layer, implementation, q, k, v, visible, **options)

    def planned(self, device: torch.device) -> tuple[torch.Tensor, list[_Group]]:
        """What all layers share: the slot of every new position int64 [N], and the groups."""
        if self._plan is None:
            self._plan = _planned(self, device)
        return self._plan


class DecodeBatch:
    """One new position of each of S sequences, as rows `[S, 1]`; stands where a KVCache would. For a CUDA graph.

    All shapes follow from those of its tensors and nothing looks at a value, so that the same work can be done again
    for other values. Only for a storage without scales.
    """

    length = 0  # as of a PagedAttentionBatch

    def __init__(self, storage: PagedStorage, positions: torch.Tensor, tables: torch.Tensor) -> None:
        """`positions` int64 [S], the new ones' places; `tables` int64 [S, n], all of them on the storage's device.

        A table ends in any blocks. A row that stands for nobody is at position 0 of the scratch block.
        """
        assert not storage.key_scales
        size, heads, device = storage.block, storage.keys[0].shape[1], tables.device
        self.storage = storage
        self._block = tables.gather(1, (positions // size)[:, None])[:, 0]
        self._place = positions % size
        # Rows of a storage seen as [blocks * kv_heads, block, D]: gathered head by head, a sequence lies in one piece.
        self._gathered = tables[:, None] * heads + torch.arange(heads, device=device)[:, None]  # [S, kv_heads, n]
        mask = torch.arange(tables.shape[1] * size, device=device) <= positions[:, None]
        self._visible = AttentionMask(mask=mask[:, None, None])  # [S, 1, 1, n * block]

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
        """Keep k, v `[S, kv_heads, 1, D]`, and let q `[S, heads, 1, D]` see its own sequence up to itself: like q."""
        key = self._kept(self.storage.keys[layer], k).to(q.dtype)
        value = self._kept(self.storage.values[layer], v).to(q.dtype)
        return attend(masked(implementation), q, key, value, self._visible, **options)

    def _kept(self, stored: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """Write the new ones, and read all `[S, kv_heads, n * block, D]`."""
        stored[self._block, :, self._place] = new[:, :, 0].to(stored.dtype)
        return stored.flatten(0, 1)[self._gathered].flatten(2, 3)


@dataclass(frozen=True)
class _Group:
    """Sequences of a pass that have equally many new positions: they attend together, unpadded."""

    places: torch.Tensor  # int64 [S * count] of their new positions in the row
    tables: torch.Tensor  # int64 [S, n]
    visible: AttentionMask  # mask [S, 1, count, n * block]


def _planned(step: PagedAttentionBatch, device: torch.device) -> tuple[torch.Tensor, list[_Group]]:
    pasts, starts = torch.tensor(step.num_computed), torch.tensor(step.starts)
    counts, size, tables = (
        torch.tensor(step.query_lens),
        step.storage.block,
        torch.tensor(step.tables).view(-1, step.width),
    )
    rows = torch.repeat_interleave(torch.arange(len(counts)), counts)
    positions = step.positions[0]
    slots = tables[rows, positions // size] * size + positions % size
    groups = []
    for count in sorted(set(step.query_lens)):
        members = (counts == count).nonzero()[:, 0]
        new = torch.arange(count)
        seen = pasts[members][:, None] + new  # [S, count]: the last position that each query sees
        longest = int(seen.max()) // size + 1
        mask = torch.arange(longest * size) <= seen[..., None]
        places = (starts[members][:, None] + new).flatten()
        visible = AttentionMask(causal=count > 1, mask=mask[:, None].to(device))
        groups.append(_Group(places.to(device), tables[members, :longest].to(device), visible))
    return slots.to(device), groups
