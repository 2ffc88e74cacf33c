"""One answer's tokens drawn from logits: `generate`'s processors and draw, a generator of its own, log-probabilities.

Nothing in here depends on what else is in the batch. V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence as Ids
from typing import Any, Protocol

import torch

from ..generate import processors
from ..generate.constraints import AnswerPenalty, LogitBias, LogitsProcessor
from ..generate.lengths import Lengths
from ..generate.options import Options
from ..generate.sampling import draw
from ..text.tokenizer import Tokenizer
from ..types import SamplingParams, TokenLogprob
from .request import Sequence


class TokenChooser(Protocol):
    """Draws the tokens of one sequence."""

    def choose(self, answer_ids: list[int], logits: torch.Tensor, likeliest: int) -> int:
        """The token that follows the prompt and `answer_ids`: from the model's logits, fp32 [V], and the likeliest."""


class Sampler:
    """Draws the tokens of one sequence. Attribute `plain`: greedy, and from the logits as they are, so that a batch of
    such rows needs one argmax."""

    def __init__(
        self,
        sequence: Sequence,
        options: Options,
        vocabulary: int,
        device: torch.device,
        constraint: LogitsProcessor | None = None,
    ) -> None:
        """`options`: the request's, resolved as `generate` does; `constraint`: what its answer is held to.

        Raises ConfigError for ids outside the vocabulary.
        """
        request = sequence.request
        params, length = request.params, len(request.prompt.ids)
        config = options.config
        self.options = options
        self._device = device
        self._prompt = request.prompt.ids
        min_length = config.min_length + request.prompt.num_uncounted if config.min_length else 0
        lengths = Lengths(length, request.max_new_tokens, min_length, config.min_new_tokens or 0)
        ids = torch.tensor([request.prompt.ids], device=device) if _needs_prompt(config) else torch.empty(1, 0)
        asked = answer_processors(params, length) + ([] if constraint is None else [constraint])
        self._processors = processors.build(options, processors.PromptRows(ids, None, lengths), asked)
        self.plain = not self._processors and not config.do_sample
        self._generator: torch.Generator | None = None
        if config.do_sample and params.seed is not None:
            self._generator = torch.Generator(device).manual_seed(_seed(params.seed, sequence.index))

    def choose(self, answer_ids: list[int], logits: torch.Tensor, likeliest: int) -> int:
        scores = logits[None]
        if self._processors:
            ids = torch.tensor([[*self._prompt, *answer_ids]], device=self._device)
            scores = processors.process(self._processors, ids, scores)
        return int(draw(scores, bool(self.options.config.do_sample), self._generator))


def answer_processors(params: SamplingParams, prompt: int) -> list[LogitsProcessor]:
    """What SamplingParams ask for beyond `generate`'s own options, for a prompt of `prompt` positions."""
    made: list[LogitsProcessor] = []
    if params.logit_bias:
        made.append(LogitBias({(token,): bias for token, bias in params.logit_bias.items()}))
    if params.frequency_penalty or params.presence_penalty:
        made.append(AnswerPenalty(params.frequency_penalty or 0.0, params.presence_penalty or 0.0, prompt))
    return made


def _seed(first: int, index: int) -> int:
    """Another one for each answer, of those that torch takes."""
    return first + index if first + index < 1 << 64 else first + index - (1 << 64)


def logprob_of(
    token: int,
    log_probs: torch.Tensor,
    alternatives: int,
    tokenizer: Tokenizer,
    *,
    asked: Ids[int] = (),
    rank: bool = False,
) -> TokenLogprob:
    """How likely `token` was by the model's own log-probabilities [V], and the `alternatives` likeliest tokens, and
    those `asked` for. `rank`: also the places among all tokens."""
    top = list[TokenLogprob]()
    if alternatives:
        best, ids = log_probs.topk(min(alternatives, len(log_probs)))
        for number, (i, p) in enumerate(zip(ids.tolist(), best.tolist(), strict=True), 1):
            top.append(_named(i, p, tokenizer, number if rank else None))
    others = tuple(_named(i, float(log_probs[i]), tokenizer) for i in asked)
    place = int((log_probs > log_probs[token]).sum()) + 1 if rank else None
    one = _named(token, float(log_probs[token]), tokenizer)
    return TokenLogprob(one.token, one.text, one.data, one.logprob, tuple(top), place, others)


def _named(token: int, logprob: float, tokenizer: Tokenizer, rank: int | None = None) -> TokenLogprob:
    data = tokenizer.token_bytes(token)
    return TokenLogprob(token, data.decode("utf-8", "replace"), data, logprob, rank=rank)


def _needs_prompt(config: Any) -> bool:
    return bool(config.encoder_repetition_penalty not in (None, 1) or config.encoder_no_repeat_ngram_size)
