"""The tokens of an answer that is held to a grammar. V vocabulary.

A greedy answer costs a look at each token that the model would have said anyway: the grammar's mask is made only where
that token is refused. Where it is allowed, it is the best of those that the mask would leave too, so that the answer is
the same.
"""

from __future__ import annotations

import numpy as np
import torch

from ...errors import ConfigError
from ...generate.constraints import GrammarConstraint, only_allowed
from ...text.tokenizer import Tokenizer
from ...types import SamplingParams
from ..model_interface import EngineModel
from ..sampler import Sampler
from .grammar import AnyMatcher, Grammars


class GrammarMask:
    """A logits processor: allows what the matcher of one answer allows next."""

    def __init__(self, matcher: AnyMatcher) -> None:
        self._matcher = matcher

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self._matcher.free:
            return scores
        return only_allowed(torch.from_numpy(self._matcher.allowed())[None].to(scores.device), scores)


class ConstrainedSampler:
    """Draws the tokens of one sequence and keeps its matcher in step with them. Attribute `matcher`."""

    def __init__(self, matcher: AnyMatcher, sampler: Sampler | None) -> None:
        """`sampler`: None for a greedy answer; else one whose processors hold the matcher's GrammarMask."""
        self.matcher, self._sampler = matcher, sampler

    def choose(self, answer_ids: list[int], logits: torch.Tensor, likeliest: int) -> int:
        """The token that follows the prompt and `answer_ids`, from the model's logits, fp32 [V]. Raises ConfigError
        where the grammar is too complex to go on."""
        if self._sampler is not None:
            token = self._sampler.choose(answer_ids, logits, likeliest)
        elif self.matcher.accepts(likeliest):
            token = likeliest
        else:
            token = best_allowed(self.matcher.allowed(), logits)
        self.matcher.advance(token)
        return token


def best_allowed(allowed: np.ndarray, logits: torch.Tensor) -> int:
    """The first of the likeliest tokens by `logits` [V] among those that are `allowed`, bool [V]."""
    if logits.device.type != "cpu":
        return int(logits.masked_fill(~torch.from_numpy(allowed).to(logits.device), -torch.inf).argmax())
    scores = logits.numpy()  # NumPy takes a tenth of torch's time for this
    if 2 * np.count_nonzero(allowed) < len(allowed):
        ids = np.flatnonzero(allowed)
        return int(ids[scores[ids].argmax()])
    scores = scores.copy()
    scores[np.flatnonzero(~allowed)] = -np.inf
    return int(scores.argmax())


def logits_processor(model: EngineModel, tokenizer: Tokenizer, params: SamplingParams) -> GrammarConstraint:
    """For `model.generate(..., logits_processor=[it])`: holds each answer to the constraint of `params`.

    Takes about a second with 156,032 tokens. Raises ConfigError for a constraint that cannot be honoured, or none.
    """
    if params.constraint is None:
        raise ConfigError("params hold no answer to anything; give json_schema, regex, choice or grammar.")
    grammars = Grammars(tokenizer, int(model.config.text_config.vocab_size))
    eos_ids = frozenset(model.generation_config.eos_ids)
    return GrammarConstraint(grammars.matcher_of(params, eos_ids))
