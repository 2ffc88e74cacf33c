"""Run the model for generation: the prompts once, then the new tokens of every step.

B prompts, R rows (the beams or samples of a prompt are adjacent), T prompt columns, L columns so far, H width,
V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..model.cache import KVCache
from ..model.merge import EmbeddedPrompt, position_ids_of
from .output import Trace

INITIAL_CAPACITY = 256  # new positions that the cache holds at first; it grows when needed


@dataclass(frozen=True)
class Rows:
    """Prompts whose answers all begin in the same column."""

    input_ids: Tensor  # int64 [B, T], or [B, 0] where only embeddings were passed
    inputs_embeds: Tensor  # [B, T, H]; after cached positions only the new ones
    attention_mask: Tensor | None  # int64 [B, T]; None: no padding
    position_ids: Tensor | None = None  # int64 [B, T]; None: counts the valid positions
    cache: KVCache | None = None  # of the positions before those of `inputs_embeds`

    @property
    def padding(self) -> Tensor | None:
        """The number of leading columns of the ids that are padding, [B]; None: no padding."""
        if self.attention_mask is None or not self.input_ids.shape[1]:
            return None
        return (self.attention_mask == 0).sum(1)

    @property
    def longest(self) -> int:
        """Positions of the longest row, without padding."""
        if self.attention_mask is None:
            return self.inputs_embeds.shape[1] + (0 if self.cache is None else self.cache.length)
        return int(self.attention_mask.sum(1).max())


def pad_left(prompt: EmbeddedPrompt, position_ids: Tensor | None = None, *, keep_columns: bool = False) -> Rows:
    """Move the padding of every row to its left, so that all answers begin in the same column.

        mask [1 1 0 0] has the order [2 3 0 1]: padding first, then the valid positions in their order

    Columns that are padding in every row are removed, unless `keep_columns`: then all have the width that was passed.
    """
    mask = (prompt.attention_mask != 0).long()
    if bool(mask.all()):
        return Rows(prompt.input_ids, prompt.inputs_embeds, None, position_ids)
    order = mask.argsort(stable=True, dim=1)
    if not keep_columns:
        order = order[:, mask.shape[1] - int(mask.sum(1).max()) :]
    rows = torch.arange(len(mask), device=mask.device)[:, None]
    mask = mask[rows, order]
    return Rows(
        prompt.input_ids[rows, order] if prompt.input_ids.shape[1] else prompt.input_ids,
        prompt.inputs_embeds[rows, order],
        None if bool(mask.all()) else mask,
        None if position_ids is None else position_ids[rows, order],
    )


class Decoder:
    """Prefill and decode steps of one call. Without `cached`, every step computes all columns again, for tests."""

    def __init__(self, model: Any, rows: Rows, max_new: int, *, cached: bool, trace: Trace) -> None:
        self.language_model = model.language_model
        self.trace = trace
        self.cache = rows.cache
        if cached and self.cache is None:
            batch, columns = rows.inputs_embeds.shape[:2]
            self.cache = model.new_cache(batch, columns + min(max_new, INITIAL_CAPACITY))
        self._mask = rows.attention_mask  # [R, L] or None
        self._position_ids = rows.position_ids  # [R, L] or None
        self._embeds = rows.inputs_embeds  # [R, L, H]; after prefill it is empty if there is a cache

    def prefill(self, times: int = 1) -> Tensor:
        """Run the prompts, then repeat each for `times` rows. Returns the logits of the last column, fp32 [R, V]."""
        logits = self._forward(self._embeds, self._mask, self._positions(self._embeds.shape[1]), 1)[:, -1]
        if self.cache is not None:
            self._embeds = self._embeds[:, :0]
        if times > 1:
            rows = torch.arange(len(logits), device=logits.device).repeat_interleave(times)
            self.select(rows)
            self.trace.repeat_states(times)
            logits = logits[rows]
        return logits

    def step(self, tokens: Tensor) -> Tensor:
        """Append `tokens`, int64 [R, q]. Returns the logits of their columns, fp32 [R, q, V]."""
        embeds, count = self.language_model.model.embed_tokens(tokens), tokens.shape[1]
        if self._mask is not None:
            self._mask = torch.cat((self._mask, torch.ones_like(tokens)), 1)
        if self._position_ids is not None:
            next_ids = self._position_ids[:, -1:] + torch.arange(1, count + 1, device=tokens.device)
            self._position_ids = torch.cat((self._position_ids, next_ids), 1)
        if self.cache is None:
            embeds = self._embeds = torch.cat((self._embeds, embeds), 1)
        return self._forward(embeds, self._mask, self._positions(embeds.shape[1]), count)

    def select(self, rows: Tensor) -> None:
        """Replace row i by the old row `rows[i]`."""
        if self.cache is not None:
            self.cache.reorder(rows)
        self._embeds = self._embeds[rows]
        if self._mask is not None:
            self._mask = self._mask[rows]
        if self._position_ids is not None:
            self._position_ids = self._position_ids[rows]

    def crop(self, columns: int) -> None:
        """Drop the columns from `columns` on. Needs a cache."""
        assert self.cache is not None
        self.cache.crop(columns)
        if self._mask is not None:
            self._mask = self._mask[:, :columns]
        if self._position_ids is not None:
            self._position_ids = self._position_ids[:, :columns]

    def _positions(self, count: int) -> Tensor | None:
        """Positions [R, count] of the last `count` columns; None without padding, when they are the column numbers."""
        if self._position_ids is not None:
            return self._position_ids[:, -count:]
        return None if self._mask is None else position_ids_of(self._mask)[:, -count:]

    def _forward(self, embeds: Tensor, mask: Tensor | None, positions: Tensor | None, keep: int) -> Tensor:
        out = self.language_model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self.cache,
            logits_to_keep=keep,
            **self.trace.model_options,
        )
        self.trace.add_states(out)
        return out.logits.to(torch.float32, copy=True)  # type: ignore[no-any-return]
