"""The model's side of generation: the prompt goes through once, then tokens are appended.

B prompts, R rows (a prompt's beams or samples lie next to each other), T prompt columns, L columns so far, H width,
V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import PromptError
from ..model.cache import KVCache
from ..model.merge import Prompt, position_ids_of
from .output import Trace

ROOM = 256  # new positions the cache has room for from the start; it grows by itself


@dataclass(frozen=True)
class Rows:
    """Prompts padded on the left."""

    input_ids: Tensor  # int64 [B, T]
    inputs_embeds: Tensor  # [B, T, H]; fewer columns where the first ones are read already
    attention_mask: Tensor | None  # int64 [B, T]; None: nothing is padded

    @property
    def padding(self) -> Tensor | None:
        """Leading columns that are padding, [B]."""
        return None if self.attention_mask is None else (self.attention_mask == 0).sum(1)


def pad_left(prompt: Prompt) -> Rows:
    """Move the padding of every row, wherever it is, to its left, so that all answers begin in one column.

        mask [1 1 0 0] has the order [2 3 0 1]: padding first, then the rest as it was

    Columns that are padding in every row go.
    """
    mask = (prompt.attention_mask != 0).long()
    if bool(mask.all()):
        return Rows(prompt.input_ids, prompt.inputs_embeds, None)
    order = mask.argsort(stable=True, dim=1)[:, mask.shape[1] - int(mask.sum(1).max()) :]
    rows = torch.arange(len(mask), device=mask.device)[:, None]
    mask = mask[rows, order]
    return Rows(prompt.input_ids[rows, order], prompt.inputs_embeds[rows, order], None if bool(mask.all()) else mask)


@dataclass(frozen=True)
class Reading:
    """One prompt of T positions, of which the model has read some already."""

    cache: KVCache  # of one row; holds the first positions, and is written to from there on
    embeds: Tensor  # [1, T - cache.length, H]: the positions not read yet, at least one

    def rows(self, input_ids: Tensor, attention_mask: Tensor) -> Rows:
        """The prompt `input_ids` [1, T], of which only `embeds` go through the model. Raises PromptError."""
        read, new = self.cache.length, self.embeds.shape[1]
        if len(input_ids) != 1 or not bool(attention_mask.all()):
            raise PromptError(
                f"reading= is for one prompt without padding; found {list(input_ids.shape)}. Leave reading out."
            )
        if not new or read + new != input_ids.shape[1]:
            raise PromptError(
                f"reading= has {read} positions in its cache and {new} to read, and the prompt has "
                f"{input_ids.shape[1]}; expected as many together, and at least one to read."
            )
        return Rows(input_ids, self.embeds, None)


class Decoder:
    """Prefill and decode of one call. With `cached` false every step computes everything again, as a yardstick."""

    def __init__(
        self, model: Any, rows: Rows, max_new: int, *, cached: bool, trace: Trace, cache: KVCache | None = None
    ) -> None:
        """`cache`: one that holds the columns before `rows.inputs_embeds` already."""
        self.language_model = model.language_model
        self.trace = trace
        self.cache = cache
        if cached and cache is None:
            batch, columns = rows.input_ids.shape
            self.cache = model.new_cache(batch, columns + min(max_new, ROOM))
        self._mask = rows.attention_mask  # [R, L] or None
        self._embeds = rows.inputs_embeds  # [R, L, H]; after prefill only kept when nothing is cached

    def prefill(self, times: int = 1) -> Tensor:
        """Run the prompts; from then on each has `times` rows. Logits of the last column, fp32 [R, V]."""
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
        """Append `tokens` [R, q]; logits of their columns, fp32 [R, q, V]."""
        embeds, count = self.language_model.model.embed_tokens(tokens), tokens.shape[1]
        if self._mask is not None:
            self._mask = torch.cat((self._mask, torch.ones_like(tokens)), 1)
        if self.cache is None:
            embeds = self._embeds = torch.cat((self._embeds, embeds), 1)
        return self._forward(embeds, self._mask, self._positions(embeds.shape[1]), count)

    def select(self, rows: Tensor) -> None:
        """Make row i what row `rows[i]` was."""
        if self.cache is not None:
            self.cache.reorder(rows)
        self._embeds = self._embeds[rows]
        if self._mask is not None:
            self._mask = self._mask[rows]

    def crop(self, columns: int) -> None:
        """Forget every column from `columns` on (with a cache)."""
        assert self.cache is not None
        self.cache.crop(columns)
        if self._mask is not None:
            self._mask = self._mask[:, :columns]

    def _positions(self, count: int) -> Tensor | None:
        """Positions [R, count] of the last `count` columns; None where they are those of the columns."""
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
