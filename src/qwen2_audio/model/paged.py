"""The KV cache of many sequences in blocks of equal size, and the batches that read and write it.

    sequence a, 70 positions, blocks of 32:   table [4, 0, 7]    position 40 is in block 0 at offset 8
    sequence b shares its first block:        table [4, 2]

A PagedAttentionBatch has any number of new positions per sequence, packed; a DecodeBatch has one, in fixed shapes.
S sequences in a batch, N new positions of all of them, D head width.
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
TINY = 1e-30  # a head whose numbers are all below this is stored as zeros: its scale's reciprocal would overflow


class PagedStorage:
    """Keys (after RoPE) and values of every layer, `[blocks, kv_heads, block, head_dim]`.

    With `torch.int8` a number is a code times a scale; every head and position has a scale: `[blocks, kv_heads, block,
    1]`. The storage has one more block than `blocks`, number `scratch`, which the padding rows of a DecodeBatch write.
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
        # Zeros, because positions after a sequence's end are read and multiplied by 0, and 0 * NaN is NaN.
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in layers]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in layers]
        scaled = layers if dtype == torch.int8 else range(0)
        self.key_scales = [torch.zeros((*shape[:3], 1), device=device) for _ in scaled]
        self.value_scales = [torch.zeros((*shape[:3], 1), device=device) for _ in scaled]

    @property
    def buffers(self) -> list[torch.Tensor]:
        """All tensors of the cache; the first dimension of each is the block's number."""
        return [*self.keys, *self.values, *self.key_scales, *self.value_scales]

    @property
    def nbytes(self) -> int:
        """Bytes of `blocks` blocks, without the scratch block."""
        return sum(buffer[: self.blocks].nbytes for buffer in self.buffers)

    def copy_block(self, source: int, target: int) -> None:
        """Copy block `source` to block `target`."""
        for buffer in self.buffers:
            buffer[target] = buffer[source]

    def clear(self, blocks: Sequence[int]) -> None:
        """Fill `blocks` with zeros, so that NaN of a failed sequence cannot reach the next one."""
        for buffer in self.buffers:
            buffer[list(blocks)] = 0

    def write(self, layer: int, slots: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        """Write `[N, kv_heads, D]` to `slots`, int64 [N]: block number * block size + offset in the block."""
        block, offset = slots // self.block, slots % self.block
        for new, stored, scales in ((key, self.keys, self.key_scales), (value, self.values, self.value_scales)):
            if scales:
                codes, scales[layer][block, :, offset] = quantize_heads(new.float())
                stored[layer][block, :, offset] = codes
            else:
                stored[layer][block, :, offset] = new.to(self.dtype)

    def read(self, layer: int, tables: torch.Tensor, like: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the blocks `tables`, int64 [S, n]: `[S, kv_heads, n * block, D]` each, in dtype `like`."""
        key_scales, value_scales = (
            scales[layer] if scales else None for scales in (self.key_scales, self.value_scales)
        )
        key = self._read(self.keys[layer], key_scales, tables, like)
        return key, self._read(self.values[layer], value_scales, tables, like)

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
            queries = q[0][:, group.columns].view(heads).transpose(0, 1)  # [S, heads, query_len, D]
            attended, _ = attend(masked(implementation), queries, key, value, group.visible, **options)
            out[0][:, group.columns] = attended.transpose(0, 1).flatten(1, 2)
        return out, None

    def _read(
        self, stored: torch.Tensor, scales: torch.Tensor | None, tables: torch.Tensor, like: torch.dtype
    ) -> torch.Tensor:
        blocks = stored[tables].to(like)  # [S, n, kv_heads, block, D]
        if scales is not None:
            blocks = blocks * scales[tables].to(like)
        return blocks.transpose(1, 2).flatten(2, 3)


def masked(implementation: str) -> str:
    """The implementation for gathered blocks. Positions after a sequence's end must be masked, which
    flash_attention_2 cannot: it is replaced by sdpa."""
    return "sdpa" if implementation == "flash_attention_2" else implementation


def quantize_heads(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x float32 [..., D] to int8 codes [..., D] and scales float32 [..., 1], so that x is about codes * scales."""
    largest = x.abs().amax(-1, keepdim=True)
    nonzero = largest > TINY
    codes = (x * torch.where(nonzero, 127 / largest, 0)).round_().to(torch.int8)
    return codes, torch.where(nonzero, largest / 127, 0)


class PagedAttentionBatch:
    """New positions of S sequences, packed as one row `[1, N]`, for one forward pass. Passed in place of a KVCache.

    Attributes, int32 arrays that native code reads: `tables` [S * width], the blocks of each sequence; `num_computed`
    [S], its cached positions; `starts` [S + 1], the first column of its new positions in the row. They are arrays,
    because making a few tensors takes a large part of a small model's decode step.
    """

    length = 0  # the language model builds its mask for 0 cached positions; the batch has masks of its own

    def __init__(
        self,
        storage: PagedStorage,
        tables: Sequence[Sequence[int]],
        num_computed: Sequence[int],
        query_lens: Sequence[int],
    ) -> None:
        """For each sequence: its block table, its cached positions, and its new positions (at least 1)."""
        self.storage = storage
        self.width = max(map(len, tables))
        padded: list[int] = []
        for table in tables:
            padded += table
            padded += [table[-1]] * (self.width - len(table))
        self.tables = array("i", padded)
        self.num_computed = array("i", num_computed)
        self.starts = array("i", (0, *accumulate(query_lens)))
        self.query_lens = list(query_lens)
        self._plan: tuple[torch.Tensor, list[_Group]] | None = None
        self.native: Any = None  # the native code's description of the batch, made once

    @property
    def positions(self) -> torch.Tensor:
        """int64 [1, N]: the position of each new token in its sequence."""
        positions = array("q")
        for computed, query_len in zip(self.num_computed, self.query_lens, strict=True):
            positions.extend(range(computed, computed + query_len))
        return torch.frombuffer(positions, dtype=torch.int64).view(1, -1)

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
        """Cache k, v `[1, kv_heads, N, D]`; each query of q `[1, heads, N, D]` attends to its own sequence, causally.

        Returns the shape of q. `visible` is not used: the batch makes its own masks.
        """
        return self.storage.attend(self, layer, implementation, q, k, v, visible, **options)

    def planned(self, device: torch.device) -> tuple[torch.Tensor, list[_Group]]:
        """The slot of every new position, int64 [N], and the groups; computed once for all layers."""
        if self._plan is None:
            self._plan = _make_plan(self, device)
        return self._plan


class DecodeBatch:
    """One new position of each of S sequences, as rows `[S, 1]`, for a CUDA graph. Passed in place of a KVCache.

    All shapes follow from the shapes of its tensors, and no value is read on the CPU, so that a captured graph can be
    replayed with other values. The storage must have no scales.
    """

    length = 0  # as in PagedAttentionBatch

    def __init__(self, storage: PagedStorage, positions: torch.Tensor, tables: torch.Tensor) -> None:
        """`positions` int64 [S], of the new tokens; `tables` int64 [S, n]; both on the storage's device.

        Entries of a table after the sequence's last block may be any block. A padding row has position 0 and the
        scratch block.
        """
        assert not storage.key_scales
        size, heads, device = storage.block, storage.keys[0].shape[1], tables.device
        self.storage = storage
        self._block = tables.gather(1, (positions // size)[:, None])[:, 0]
        self._offset = positions % size
        # Row numbers of the storage viewed as [blocks * kv_heads, block, D]: a gather by head makes each sequence
        # contiguous.
        self._rows = tables[:, None] * heads + torch.arange(heads, device=device)[:, None]  # [S, kv_heads, n]
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
        """Cache k, v `[S, kv_heads, 1, D]`; each query of q `[S, heads, 1, D]` attends to its own sequence.

        Returns the shape of q. `visible` is not used: the batch has its own mask.
        """
        key = self._write_and_read(self.storage.keys[layer], k).to(q.dtype)
        value = self._write_and_read(self.storage.values[layer], v).to(q.dtype)
        return attend(masked(implementation), q, key, value, self._visible, **options)

    def _write_and_read(self, stored: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """Write the new positions `[S, kv_heads, 1, D]`, then read all: `[S, kv_heads, n * block, D]`."""
        stored[self._block, :, self._offset] = new[:, :, 0].to(stored.dtype)
        return stored.flatten(0, 1)[self._rows].flatten(2, 3)


@dataclass(frozen=True)
class _Group:
    """Sequences of a batch with equally many new positions, which attend together without padding."""

    columns: torch.Tensor  # int64 [S * query_len]: the columns of their new positions in the row
    tables: torch.Tensor  # int64 [S, n]
    visible: AttentionMask  # mask [S, 1, query_len, n * block]


def _make_plan(step: PagedAttentionBatch, device: torch.device) -> tuple[torch.Tensor, list[_Group]]:
    num_computed, starts = torch.tensor(step.num_computed), torch.tensor(step.starts)
    query_lens, size = torch.tensor(step.query_lens), step.storage.block
    tables = torch.tensor(step.tables).view(-1, step.width)
    rows = torch.repeat_interleave(torch.arange(len(query_lens)), query_lens)
    positions = step.positions[0]
    slots = tables[rows, positions // size] * size + positions % size
    groups = []
    for query_len in sorted(set(step.query_lens)):
        members = (query_lens == query_len).nonzero()[:, 0]
        new = torch.arange(query_len)
        last = num_computed[members][:, None] + new  # [S, query_len]: the last position that each query attends to
        blocks = int(last.max()) // size + 1
        mask = torch.arange(blocks * size) <= last[..., None]
        columns = (starts[members][:, None] + new).flatten()
        visible = AttentionMask(causal=query_len > 1, mask=mask[:, None].to(device))
        groups.append(_Group(columns.to(device), tables[members, :blocks].to(device), visible))
    return slots.to(device), groups
