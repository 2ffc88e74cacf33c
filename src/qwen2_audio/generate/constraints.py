"""Logits processors that depend on token ids: penalties on repetition, banned tokens, forced tokens.

Each is a callable `(input_ids [B, L] int64, scores [B, V] fp32) -> scores [B, V]` that does not change its arguments.
Formulas, order and tie rules are the reference's (transformers 5.23, `logits_process.py`), with one difference: padding
never counts as a token of the row, so that a row does not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError, PromptError

LogitsProcessor = Callable[[Tensor, Tensor], Tensor]
BANNED = float("-inf")


def _occurring(ids: Tensor, valid: Tensor, scores: Tensor) -> Tensor:
    """Bool [B, V]: which tokens occur in each row of `ids` [B, L] where `valid`, bool [B, L], is True."""
    rows, vocabulary = scores.shape
    occurs = scores.new_zeros((rows, vocabulary + 1), dtype=torch.bool)
    # Ids that are not valid, or outside the vocabulary, mark an extra column V, which is cut off.
    columns = ids.clamp(max=vocabulary).masked_fill(~valid, vocabulary)
    return occurs.scatter_(1, columns, True)[:, :vocabulary]


def _not_padding(ids: Tensor, padding: Tensor | None) -> Tensor:
    """Bool [B, L]: False for the first `padding[b]` columns of row b, int64 [B]; None: no padding."""
    columns = torch.arange(ids.shape[1], device=ids.device)
    first = columns.new_zeros(ids.shape[0]) if padding is None else padding.to(ids.device)
    return columns[None, :] >= first[:, None]


def _only(tokens: list[int], scores: Tensor) -> Tensor:
    """Scores that allow only `tokens`."""
    forced = torch.full_like(scores, BANNED)
    forced[:, tokens] = 0
    return forced


def _without(tokens: list[int], scores: Tensor) -> Tensor:
    """`scores` with `tokens` banned."""
    out = scores.clone()
    out[:, [t for t in tokens if t < scores.shape[1]]] = BANNED
    return out


@dataclass
class RepetitionPenalty:
    """The score s of every id in the row, prompt included, becomes s / penalty, or s * penalty if s is negative."""

    penalty: float
    padding: Tensor | None = None  # int64 [B], leading columns that are padding

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        occurs = _occurring(input_ids, _not_padding(input_ids, self.padding), scores)
        return torch.where(occurs, _penalised(scores, self.penalty), scores)


@dataclass
class PromptRepetitionPenalty:
    """The inverse, for ids of the prompt only (`encoder_repetition_penalty`): above 1 makes them more likely."""

    penalty: float
    prompt_ids: Tensor  # int64 [B, T]
    padding: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        occurs = _occurring(self.prompt_ids, _not_padding(self.prompt_ids, self.padding), scores)
        return torch.where(occurs, _penalised(scores, 1 / self.penalty), scores)


def _penalised(scores: Tensor, penalty: float) -> Tensor:
    return torch.where(scores < 0, scores * penalty, scores / penalty)


@dataclass
class AnswerPenalty:
    """Subtracts `frequency` per occurrence in the answer, and `presence` once, from an id's score (OpenAI's rule)."""

    frequency: float
    presence: float
    prompt: int  # columns of the prompt, whose tokens do not count

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        answer = input_ids[:, self.prompt :]
        counts = torch.zeros_like(scores).scatter_add_(1, answer, torch.ones_like(answer, dtype=scores.dtype))
        return scores - self.frequency * counts - self.presence * (counts > 0)


@dataclass
class NoRepeatNGram:
    """Bans the token that would complete a second occurrence of an n-gram of `size` tokens."""

    size: int
    padding: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return self._ban(input_ids, input_ids, scores)

    def _ban(self, source: Tensor, input_ids: Tensor, scores: Tensor) -> Tensor:
        if source.shape[1] < self.size or input_ids.shape[1] < self.size - 1:
            return scores
        ending = input_ids[:, input_ids.shape[1] - self.size + 1 :]  # [B, n-1], the first n-1 tokens of the next n-gram
        windows = source.unfold(1, self.size, 1)  # [B, L-n+1, n]
        repeats = (windows[..., :-1] == ending[:, None, :]).all(-1)
        repeats &= _not_padding(source, self.padding)[:, : windows.shape[1]]
        return scores.masked_fill(_occurring(windows[..., -1], repeats, scores), BANNED)


@dataclass
class NoRepeatNGramOfPrompt(NoRepeatNGram):
    """Bans the token that would complete an n-gram of the prompt (`encoder_no_repeat_ngram_size`)."""

    prompt_ids: Tensor | None = None  # int64 [B, T]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        assert self.prompt_ids is not None
        return self._ban(self.prompt_ids, input_ids, scores)


class SequenceBias:
    """Adds a bias to the score of the token that would complete a sequence of ids.

    biases: {(ids): bias} or [[ids, bias], ...]. A sequence of one id always gets its bias.
    """

    def __init__(self, biases: dict[tuple[int, ...], float] | Sequence[Sequence]) -> None:
        pairs = biases.items() if isinstance(biases, dict) else biases
        self.biases = {tuple(ids): float(bias) for ids, bias in pairs}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._check_ids(scores.shape[1])
        bias = torch.zeros_like(scores)
        for ids, value in self.biases.items():
            start = input_ids.shape[1] - len(ids) + 1
            if start < 0:
                continue
            ending = torch.tensor(ids[:-1], dtype=input_ids.dtype, device=input_ids.device)
            completes = (input_ids[:, start:] == ending).all(1)
            bias[:, ids[-1]] += torch.zeros_like(bias[:, 0]).masked_fill(completes, value)
        return scores + bias

    def _check_ids(self, vocabulary: int) -> None:
        outside = sorted({t for ids in self.biases for t in ids if t >= vocabulary})
        if outside:
            raise ConfigError(f"Biased or bad-word ids {outside} are outside the vocabulary of {vocabulary} tokens.")


class LogitBias(SequenceBias):
    """A request's biases of single tokens. A class of its own, so that it does not replace the model's SequenceBias."""


class NoBadWords(SequenceBias):
    """Bans the token that would complete one of `words`. A word that is an end-of-text id is not banned."""

    def __init__(self, words: Sequence[Sequence[int]], eos_ids: Sequence[int] = ()) -> None:
        super().__init__({tuple(w): BANNED for w in words if not (len(w) == 1 and w[0] in eos_ids)})


@dataclass
class MinLength:
    """Bans the end of text while the row, prompt included, is shorter than `length` columns."""

    length: int
    eos_ids: list[int]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return _without(self.eos_ids, scores) if input_ids.shape[1] < self.length else scores


@dataclass
class MinNewTokens:
    """Bans the end of text for the first `count` new tokens."""

    prompt: int  # columns
    count: int
    eos_ids: list[int]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return _without(self.eos_ids, scores) if input_ids.shape[1] - self.prompt < self.count else scores


@dataclass
class PrefixAllowed:
    """Allows only the ids that `allowed(prompt number, ids [L])` returns as the next token."""

    allowed: Callable[[int, Tensor], Sequence[int]]
    num_beams: int = 1
    answers: int = 1  # rows per prompt without beams

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        mask = torch.full_like(scores, BANNED)
        for row, ids in enumerate(input_ids):
            prompt = row // (self.num_beams * self.answers)
            tokens = list(self.allowed(prompt, ids))
            if not tokens:
                raise PromptError(
                    f"prefix_allowed_tokens_fn allows no token for prompt {prompt} after "
                    f"{len(ids)} ids; it must return at least one."
                )
            mask[row, tokens] = 0
        masked = scores + mask
        # If no beam of a prompt has a token left, allow the returned ids with score 0.
        exhausted = masked.amax(1).isneginf().view(-1, self.num_beams).all(1).repeat_interleave(self.num_beams)
        return torch.where(exhausted[:, None], mask, masked)


def only_allowed(allowed: Tensor, scores: Tensor) -> Tensor:
    """`scores` [B, V] with the tokens banned that are not `allowed`, bool [B, V]. Where something else has banned all
    that are allowed, they come back with the score 0."""
    masked = scores.masked_fill(~allowed, BANNED)
    exhausted = masked.amax(1).isneginf()
    return torch.where(exhausted[:, None] & allowed, 0.0, masked)


class AnswerMatcher(Protocol):
    """How far one answer has come in a grammar; `engine.structured.grammar` makes them."""

    def copy(self) -> Self: ...

    def advance(self, token: int) -> None:
        """The answer has gone on with `token`. After its end, any token is taken."""

    def allowed(self) -> np.ndarray:
        """Bool [V]: the tokens that the answer may go on with."""


@dataclass
class GrammarConstraint:
    """Allows only tokens with which a row's answer is still the beginning of a text that a grammar accepts.

    It reads the whole answer at each token: what the engine does in one look at a time is held to this.
    """

    matcher: AnswerMatcher  # at the beginning of an answer
    prompt: int | None = None  # columns of the prompt, which the grammar does not see; None: `generate` says

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        answers = input_ids[:, self.prompt :].tolist()
        return only_allowed(torch.stack([self._allowed(ids) for ids in answers]).to(scores.device), scores)

    def _allowed(self, answer: list[int]) -> Tensor:
        matcher = self.matcher.copy()
        for token in answer:
            matcher.advance(token)
        return torch.from_numpy(matcher.allowed())


@dataclass
class ForcedBos:
    """Allows only `token` after a prompt of one column."""

    token: int

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return _only([self.token], scores) if input_ids.shape[1] == 1 else scores


@dataclass
class ForcedEos:
    """Allows only `eos_ids` in the last of `max_length` columns."""

    max_length: int
    eos_ids: list[int]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return _only(self.eos_ids, scores) if input_ids.shape[1] == self.max_length - 1 else scores


@dataclass
class RemoveInvalid:
    """Replaces NaN by 0 and infinities by the largest finite numbers."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        limits = torch.finfo(scores.dtype)
        return torch.nan_to_num(scores, nan=0.0, posinf=limits.max, neginf=limits.min)


@dataclass
class ExponentialDecayLength:
    """Adds |s| * (factor**k - 1) to the score s of an end-of-text id, k tokens after the first `start` new tokens."""

    start: int
    factor: float
    eos_ids: list[int]
    prompt: int  # columns

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        excess = input_ids.shape[1] - self.prompt - self.start
        if excess <= 0:
            return scores
        eos_ids = [i for i in self.eos_ids if i < scores.shape[1]]
        old = scores[:, eos_ids]
        increase = old.abs() * (self.factor**excess - 1)
        out = scores.clone()
        out[:, eos_ids] = old + increase.masked_fill(~old.isfinite(), 0.0)
        return out


@dataclass
class SuppressTokens:
    """Bans `tokens`."""

    tokens: list[int]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return _without(self.tokens, scores)


@dataclass
class SuppressAtBegin:
    """Bans `tokens` as the first new token, when the row has `begin` columns."""

    tokens: list[int]
    begin: int

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return _without(self.tokens, scores) if input_ids.shape[1] == self.begin else scores
