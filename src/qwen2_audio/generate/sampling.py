"""Logits processors that shape the distribution of the next token, and the draw.

Each is a callable `(input_ids [B, L] int64, scores [B, V] fp32) -> scores [B, V]`; an excluded token gets -inf.
Formulas and tie rules are the reference's (transformers 5.23, `logits_process.py`). The best `min_keep` tokens are
never excluded: 1, or with beams one more than there are end-of-text ids, so that a beam can always continue.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .constraints import BANNED


def draw(scores: Tensor, do_sample: bool, generator: torch.Generator | None = None) -> Tensor:
    """The next token of each row, int64 [B]: drawn from softmax(scores [B, V]), or the first with the best score."""
    if not do_sample:
        return scores.argmax(-1)
    return torch.multinomial(scores.softmax(-1), num_samples=1, generator=generator).squeeze(1)


def _unsorted(drop: Tensor, order: Tensor) -> Tensor:
    """Move the columns of `drop` [B, V] from the order `order` to vocabulary order."""
    return drop.scatter(1, order, drop)


def _threshold(values: Tensor, count: int) -> Tensor:
    """The `count`-th largest value of each row, [B, 1]."""
    return values.topk(min(count, values.shape[-1])).values[:, -1:]


def _entropy(scores: Tensor) -> Tensor:
    """Entropy in nats of softmax(scores), [B, 1]."""
    log_p = (scores - scores.logsumexp(-1, keepdim=True)).clamp(min=torch.finfo(scores.dtype).min)
    return -(log_p * log_p.softmax(-1)).sum(-1, keepdim=True)


@dataclass
class Temperature:
    """scores / temperature: below 1 sharpens the distribution, above 1 flattens it."""

    temperature: float

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores / self.temperature


@dataclass
class TopH:
    """Of the best 100 tokens, keeps the most likely ones whose summed -p*log(p) is at most `share` of their entropy."""

    share: float

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        best, order = scores.topk(min(100, scores.shape[-1]), sorted=True)
        best = best - best.logsumexp(-1, keepdim=True)
        p = best.softmax(-1)
        terms = -p * p.log()  # NaN where p is 0; NaN compares as False, so the token is dropped
        keep = terms.cumsum(-1) <= _entropy(best) * self.share
        keep[:, 0] = True
        return scores.masked_fill(~torch.zeros_like(scores, dtype=torch.bool).scatter(1, order, keep), BANNED)


@dataclass
class TopK:
    """Drops tokens below the k-th largest score; keeps ties with it."""

    k: int
    min_keep: int = 1

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.masked_fill(scores < _threshold(scores, max(self.k, self.min_keep)), BANNED)


@dataclass
class TopP:
    """Drops the least likely tokens whose cumulative probability, from the least likely up, is at most 1 - p."""

    p: float
    min_keep: int = 1

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        ascending, order = scores.sort(-1)
        drop = ascending.softmax(-1).cumsum(-1) <= 1 - self.p
        drop[:, -self.min_keep :] = False
        return scores.masked_fill(_unsorted(drop, order), BANNED)


@dataclass
class MinP:
    """Drops tokens with less than `share` of the most likely token's probability."""

    share: float
    min_keep: int = 1

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        p = scores.softmax(-1)
        drop = p < self.share * p.amax(-1, keepdim=True)
        best = p.topk(min(self.min_keep, p.shape[-1])).indices
        return scores.masked_fill(drop.scatter(1, best, False), BANNED)


@dataclass
class Typical:
    """Keeps the tokens whose -log(p) is nearest to the entropy, up to `mass` of probability (arXiv 2202.00666)."""

    mass: float
    min_keep: int = 1

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        log_p = scores.log_softmax(-1)
        entropy = -(log_p * log_p.exp()).nansum(-1, keepdim=True)
        distance, order = (-log_p - entropy).abs().sort(-1)
        mass = scores.gather(1, order).softmax(-1).cumsum(-1)
        last = (mass < self.mass).sum(-1, keepdim=True).clamp(max=scores.shape[-1] - 1)
        drop = distance > distance.gather(1, last)
        drop[:, : self.min_keep] = False
        return scores.masked_fill(_unsorted(drop, order), BANNED)


@dataclass
class Epsilon:
    """Drops tokens with a probability below `cutoff`."""

    cutoff: float
    min_keep: int = 1

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        drop = scores.softmax(-1) < self.cutoff
        return scores.masked_fill(drop & (scores < _threshold(scores, self.min_keep)), BANNED)


@dataclass
class Eta:
    """Drops tokens with a probability below min(cutoff, sqrt(cutoff) * exp(-entropy)) (arXiv 2210.15191)."""

    cutoff: float
    min_keep: int = 1

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        cutoff = torch.tensor(self.cutoff, dtype=scores.dtype, device=scores.device)
        drop = scores.softmax(-1) < torch.min(cutoff, cutoff.sqrt() * (-_entropy(scores)).exp())
        return scores.masked_fill(drop & (scores < _threshold(scores, self.min_keep)), BANNED)


@dataclass
class Renormalise:
    """log_softmax(scores): log-probabilities."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.log_softmax(-1)
