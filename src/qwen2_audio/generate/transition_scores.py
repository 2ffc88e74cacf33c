"""The scores of the tokens that were chosen, from what `generate` returned."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def transition_scores(
    sequences: Tensor, scores: Sequence[Tensor], beam_indices: Tensor | None = None, *, normalize: bool = False
) -> Tensor:
    """The score of each generated token, and 0 after a beam's end.

    Args:
        sequences: int64 [N, T + new], of `generate(return_dict_in_generate=True, output_scores=True)`.
        scores: `new` tensors [R, V], a row for each row that was decoded.
        beam_indices: int64 [N, new], the row that each token continued, -1 after the end. None: row n of N = R.
        normalize: take log-softmax of the scores, which beams have already.

    Returns:
        [N, new]. For beams their sum, divided by length ** length_penalty, is `sequences_scores`.
    """
    if beam_indices is None:
        rows = torch.arange(len(sequences), device=sequences.device)[:, None].expand(-1, len(scores))
    else:
        rows = beam_indices[:, : int((beam_indices >= 0).sum(1).max())]
    steps = rows.shape[1]
    tokens = sequences[:, sequences.shape[1] - steps :]
    out = torch.zeros_like(rows, dtype=scores[0].dtype)
    for step in range(steps):
        values = scores[step].log_softmax(-1) if normalize else scores[step]
        out[:, step] = values[rows[:, step].clamp(min=0), tokens[:, step]]
    return out.masked_fill(rows < 0, 0)
