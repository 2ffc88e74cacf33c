"""Logits processors that look at token ids: what was said already, what is forbidden, what is forced.

Each is a callable `(input_ids [B, L] int64, scores [B, V] fp32) -> scores [B, V]` that leaves its arguments alone.
Formulas, order and tie rules are the reference's (transformers 5.23, `logits_process.py`); what differs is that padding
never counts as something said, so that a row does not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ConfigError, PromptError

LogitsProcessor = Callable[[Tensor, Tensor], Tensor]
BANNED = float("-inf")


def _spare(ids: Tensor, keep: Tensor, vocabulary: int) -> Tensor:
    """`ids` with those not in `keep`, or outside the vocabulary, turned into the spare column V."""
    return ids.clamp(max=vocabulary).masked_fill(~keep, vocabulary)


def _marked(ids: Tensor, keep: Tensor, scores: Tensor) -> Tensor:
    """Bool [B, V]: which tokens occur in each row of `ids` [B, L] where `keep` [B, L] is true."""
    rows, vocabulary = scores.shape
    mark = scores.new_zeros((rows, vocabulary + 1), dtype=torch.bool)
    return mark.scatter_(1, _spare(ids, keep, vocabulary), True)[:, :vocabulary]


def _said(ids: Tensor, padding: Tensor | None) -> Tensor:
    """Bool [B, L]: the columns after the first `padding` [B] ones of each row."""
    columns = torch.arange(ids.shape[1], device=ids.device)
    first = columns.new_zeros(ids.shape[0]) if padding is None else padding.to(ids.device)
    return columns[None, :] >= first[:, None]


def _only(tokens: list[int], scores: Tensor) -> Tensor:
    forced = torch.full_like(scores, BANNED)
    forced[:, tokens] = 0
    return forced


def _without(tokens: list[int], scores: Tensor) -> Tensor:
    out = scores.clone()
    out[:, [t for t in tokens if t < scores.shape[1]]] = BANNED
    return out


@dataclass
class RepetitionPenalty:
    """Score s of every id in the row becomes s/penalty, or s*penalty below zero; once per id, prompt included."""

    penalty: float
    padding: Tensor | None = None  # [B] leading columns that are padding

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        said = _marked(input_ids, _said(input_ids, self.padding), scores)
        return torch.where(said, _penalised(scores, self.penalty), scores)


@dataclass
class PromptRepetitionPenalty:
    """The reverse for ids of the prompt alone (`encoder_repetition_penalty`): above 1 they become likelier."""

    penalty: float
    prompt_ids: Tensor  # [B, T]
    padding: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        said = _marked(self.prompt_ids, _said(self.prompt_ids, self.padding), scores)
        return torch.where(said, _penalised(scores, 1 / self.penalty), scores)


def _penalised(scores: Tensor, penalty: float) -> Tensor:
    return torch.where(scores < 0, scores * penalty, scores / penalty)


@dataclass
class AnswerPenalty:
    """Off the score of each id of the answer: `frequency` for each time it occurs, `presence` once (as at OpenAI)."""

    frequency: float
    presence: float
    prompt: int  # columns, which do not count

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        answer = input_ids[:, self.prompt :]
        times = torch.zeros_like(scores).scatter_add_(1, answer, torch.ones_like(answer, dtype=scores.dtype))
        return scores - self.frequency * times - self.presence * (times > 0)


@dataclass
class NoRepeatNGram:
    """No n tokens occur twice: the token that would complete an earlier n-gram is banned."""

    size: int
    padding: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return self._ban(input_ids, input_ids, scores)

    def _ban(self, source: Tensor, input_ids: Tensor, scores: Tensor) -> Tensor:
        if source.shape[1] < self.size or input_ids.shape[1] < self.size - 1:
            return scores
        ending = input_ids[:, input_ids.shape[1] - self.size + 1 :]  # [B, n-1], what the next token would complete
        windows = source.unfold(1, self.size, 1)  # [B, L-n+1, n]
        repeats = (windows[..., :-1] == ending[:, None, :]).all(-1)
        repeats &= _said(source, self.padding)[:, : windows.shape[1]]
        return scores.masked_fill(_marked(windows[..., -1], repeats, scores), BANNED)


@dataclass
class NoRepeatNGramOfPrompt(NoRepeatNGram):
    """No n tokens of the prompt occur in the answer (`encoder_no_repeat_ngram_size`)."""

    prompt_ids: Tensor | None = None  # [B, T]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        assert self.prompt_ids is not None
        return self._ban(self.prompt_ids, input_ids, scores)


class SequenceBias:
    """Adds a bias to the token that completes a sequence of ids.

    biases: {(ids): bias} or [[ids, bias], ...]. A sequence of one id is biased always.
    """

    def __init__(self, biases: dict[tuple[int, ...], float] | Sequence[Sequence]) -> None:
        pairs = biases.items() if isinstance(biases, dict) else biases
        self.biases = {tuple(ids): float(bias) for ids, bias in pairs}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._check(scores.shape[1])
        bias = torch.zeros_like(scores)
        for ids, value in self.biases.items():
            start = input_ids.shape[1] - len(ids) + 1
            if start < 0:
                continue
            ending = torch.tensor(ids[:-1], dtype=input_ids.dtype, device=input_ids.device)
            completes = (input_ids[:, start:] == ending).all(1)
            bias[:, ids[-1]] += torch.zeros_like(bias[:, 0]).masked_fill(completes, value)
        return scores + bias

    def _check(self, vocabulary: int) -> None:
        outside = sorted({t for ids in self.biases for t in ids if t >= vocabulary})
        if outside:
            raise ConfigError(f"Biased or bad-word ids {outside} are outside the vocabulary of {vocabulary} tokens.")


class LogitBias(SequenceBias):
    """What one request adds to single tokens: beside the checkpoint's own `sequence_bias`, not in its place."""


class NoBadWords(SequenceBias):
    """Bans the token that would complete one of `words`; an end-of-text id alone cannot be banned."""

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
    """Only the ids that `allowed(prompt number, ids [L])` returns may come next."""

    allowed: Callable[[int, Tensor], Sequence[int]]
    num_beams: int = 1
    answers: int = 1  # rows of a prompt, where they are no beams

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
        # A prompt whose every beam is left without a token gets its allowed ones back, at score 0.
        stuck = masked.amax(1).isneginf().view(-1, self.num_beams).all(1).repeat_interleave(self.num_beams)
        return torch.where(stuck[:, None], mask, masked)


@dataclass
class ForcedBos:
    """Right after a prompt of one column only `token` may come."""

    token: int

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return _only([self.token], scores) if input_ids.shape[1] == 1 else scores


@dataclass
class ForcedEos:
    """The last of `max_length` columns is one of `eos_ids`."""

    max_length: int
    eos_ids: list[int]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return _only(self.eos_ids, scores) if input_ids.shape[1] == self.max_length - 1 else scores


@dataclass
class RemoveInvalid:
    """NaN becomes 0, infinities the largest finite numbers."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        limits = torch.finfo(scores.dtype)
        return torch.nan_to_num(scores, nan=0.0, posinf=limits.max, neginf=limits.min)


@dataclass
class ExponentialDecayLength:
    """From `start` new tokens on, k tokens later, an end-of-text score s gets |s| * (factor**k - 1) added."""

    start: int
    factor: float
    eos_ids: list[int]
    prompt: int  # columns

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        late = input_ids.shape[1] - self.prompt - self.start
        if late <= 0:
            return scores
        known = [i for i in self.eos_ids if i < scores.shape[1]]
        ends = scores[:, known]
        raised = ends.abs() * (self.factor**late - 1)
        out = scores.clone()
        out[:, known] = ends + raised.masked_fill(~ends.isfinite(), 0.0)
        return out


@dataclass
class SuppressTokens:
    """Bans `tokens` always."""

    tokens: list[int]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return _without(self.tokens, scores)


@dataclass
class SuppressAtBegin:
    """Bans `tokens` when the row is `begin` columns long: as the first new token."""

    tokens: list[int]
    begin: int

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return _without(self.tokens, scores) if input_ids.shape[1] == self.begin else scores
