"""What one forward pass over packed sequences computes, as plain ints that can travel to another process; and what it
gives.

S sequences in a pass, N new positions of all of them together, H width, V vocabulary, L positions with logits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain
from typing import Self

import torch

from ...model.paged import PagedAttentionBatch, PagedStorage
from ..model_interface import EngineModel


@dataclass(frozen=True)
class ForwardBatch:
    """For each of S sequences: its blocks, how many positions are cached, how many are new, and for how many of the new
    ones (the last) logits are computed."""

    block_tables: Sequence[Sequence[int]]
    num_computed: Sequence[int]
    query_lens: Sequence[int]
    num_logits: Sequence[int]

    def run(
        self,
        model: EngineModel,
        storage: PagedStorage,
        embeds: torch.Tensor | None = None,
        *,
        ids: torch.Tensor | None = None,
        states: list[torch.Tensor] | None = None,
        every_layer: bool = False,
    ) -> torch.Tensor:
        """Compute the new positions from their embeddings [1, N, H] or their ids int64 [1, N].

        Returns logits [L, V] with L = sum of num_logits. `states` gets the hidden states [N, H] behind the final norm;
        with `every_layer`, first those that enter each layer.
        """
        given = ids if embeds is None else embeds
        assert given is not None
        step = PagedAttentionBatch(storage, self.block_tables, self.num_computed, self.query_lens)
        logits_to_keep: int | torch.Tensor = 0
        if self.query_lens != self.num_logits:
            lengths = zip(self.query_lens, self.num_logits, strict=True)
            mask = [position >= length - kept for length, kept in lengths for position in range(length)]
            logits_to_keep = torch.tensor([mask]).to(given.device)
        out = model.language_model(
            ids,
            inputs_embeds=embeds,
            position_ids=step.positions.to(given.device),
            past_key_values=step,
            logits_to_keep=logits_to_keep,
            output_hidden_states=every_layer,
        )
        if states is not None:
            states += [state[0] for state in out.hidden_states or (out.last_hidden_state,)]
        return out.logits.view(-1, out.logits.shape[-1])  # type: ignore[no-any-return]

    def numbers(self) -> list[int]:
        """Itself as one list: S, then every field; the block tables as their lengths, then end to end."""
        lengths = [len(table) for table in self.block_tables]
        blocks = chain.from_iterable(self.block_tables)
        return [len(lengths), *self.num_computed, *self.query_lens, *self.num_logits, *lengths, *blocks]

    @classmethod
    def of(cls, numbers: Sequence[int]) -> Self:
        """The batch whose `numbers` these are."""
        size = numbers[0]
        num_computed, query_lens, num_logits, lengths = (numbers[1 + i * size : 1 + (i + 1) * size] for i in range(4))
        ends = [0, *accumulate(lengths)]
        blocks = numbers[1 + 4 * size :]
        tables = [blocks[ends[i] : ends[i + 1]] for i in range(size)]
        return cls(tables, num_computed, query_lens, num_logits)


@dataclass(frozen=True, eq=False)
class ForwardOutput:
    """The logits of a pass, valid until the next one, and the likeliest token of each row."""

    logits: torch.Tensor  # float32 [L, V]
    greedy: list[tuple[int, bool]]  # the likeliest token, and whether its logit is a finite number
    hidden: Sequence[torch.Tensor] = ()  # [N, H] each: what `ForwardBatch.run` puts into `states`, if that is wanted

    @cached_property
    def log_probs(self) -> torch.Tensor:
        """float32 [L, V]; of all rows at once, the first time that one is asked for."""
        return self.logits.log_softmax(-1)

    @classmethod
    def of(cls, logits: torch.Tensor, hidden: Sequence[torch.Tensor] = ()) -> Self:
        """From float32 logits [L, V] and what `hidden` holds."""
        if not len(logits):
            return cls(logits, [], hidden)
        if logits.device.type == "cpu":  # NumPy's argmax takes a tenth of the time of torch's, and finds NaN as well
            rows = logits.numpy()
            tokens: list[int] = rows.argmax(-1).tolist()
            best = [rows.item(row, token) for row, token in enumerate(tokens)]
        else:
            best, tokens = (column.tolist() for column in logits.max(-1))
        return cls(logits, list(zip(tokens, map(math.isfinite, best), strict=True)), hidden)
