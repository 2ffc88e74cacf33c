"""What one forward pass over packed sequences computes, apart from their embeddings: plain ints, so that it can travel.

S sequences in a pass, N new positions of all of them together, H width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any, Self

import torch

from ...model.paged import PagedAttentionBatch, PagedStorage


@dataclass(frozen=True)
class Packed:
    """For each of S sequences: the blocks it lies in, the positions cached, those that are new, and how many of the
    new ones, the last, get logits."""

    tables: Sequence[Sequence[int]]
    pasts: Sequence[int]
    counts: Sequence[int]
    wanted: Sequence[int]

    def run(
        self, model: Any, storage: PagedStorage, embeds: torch.Tensor | None = None, *, ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Compute the new positions, given their embeddings [1, N, H] or their ids int64 [1, N].

        Returns logits [sum of wanted, V].
        """
        given = ids if embeds is None else embeds
        assert given is not None
        step = PagedAttentionBatch(storage, self.tables, self.pasts, self.counts)
        keep: int | torch.Tensor = 0
        if self.counts != self.wanted:
            sides = zip(self.counts, self.wanted, strict=True)
            keep = torch.tensor([[place >= count - wanted for count, wanted in sides for place in range(count)]])
            keep = keep.to(model.device)
        out = model.language_model(
            ids,
            inputs_embeds=embeds,
            position_ids=step.positions.to(given.device),
            past_key_values=step,
            logits_to_keep=keep,
        )
        return out.logits.view(-1, out.logits.shape[-1])  # type: ignore[no-any-return]

    def numbers(self) -> list[int]:
        """Itself as one list: S, then every field, the tables by their lengths and end to end."""
        lengths = [len(table) for table in self.tables]
        return [len(lengths), *self.pasts, *self.counts, *self.wanted, *lengths, *chain.from_iterable(self.tables)]

    @classmethod
    def of(cls, numbers: Sequence[int]) -> Self:
        """From its `numbers`."""
        size = numbers[0]
        pasts, counts, wanted, lengths = (numbers[1 + i * size : 1 + (i + 1) * size] for i in range(4))
        ends = [0, *accumulate(lengths)]
        blocks = numbers[1 + 4 * size :]
        return cls([blocks[ends[i] : ends[i + 1]] for i in range(size)], pasts, counts, wanted)
