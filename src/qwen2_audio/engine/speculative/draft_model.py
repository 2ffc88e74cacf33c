"""A second, smaller checkpoint that hears the same clips and proposes what an answer will say next.

    sequence        the prompt, and the tokens so far     ... the  dog          in the engine
    DraftSequence   the same in the draft model's cache   ... the  dog | barks  at        draft tokens behind `known`

A step: the draft model prefills what is new of all sequences in one pass, then computes single tokens for all of them
together. At the next step a DraftSequence is cut back to what its sequence took. The draft model can only cost time: if
it has no room, fails or gives NaN, the answer goes on without it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch

from ...checkpoint.config import Qwen2AudioConfig
from ...errors import ConfigError
from ...native.paged import storage_for
from ..block_manager import BlockManager
from ..encoder_cache import EncoderCache
from ..executor.model_runner import ModelRunner
from ..metrics import Stats
from ..model_interface import EngineModel
from ..request import Sequence
from ..scheduler import ScheduledSequence, StepSizeController, share_out
from ..settings import EngineSettings
from .proposer import DraftHistory

PREFILL_SECONDS = 0.05  # of the draft model's prefill a step: other answers wait for it
RETRY_AFTER = 64  # tokens, until an answer that found no room asks again

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class DraftSequence(Sequence):
    """A sequence in the draft model's cache: its first `known` keys are those of the engine's sequence."""

    known: int = 0

    def follow(self, keys: list[int]) -> None:
        """Become `keys`. Draft tokens that agree with them stay computed, the others are cut off."""
        pairs = zip(self.prefix_keys[self.known :], keys[self.known :], strict=False)
        agreeing = self.known + sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        del self.prefix_keys[agreeing:]
        self.prefix_keys += keys[agreeing:]
        self.known = len(keys)
        self.computed = min(self.computed, agreeing, self.known - 1)  # one stays uncomputed: its pass gives logits


class DraftModel:
    """A Proposer: greedy tokens of a model that shares nothing with the engine's, except perhaps the encoder cache.

    Adapters are the engine's model's: for a request with one, the draft model proposes what it would say without.
    """

    def __init__(
        self,
        model: EngineModel,
        blocks: int,
        settings: EngineSettings,
        stats: Stats,
        *,
        encoder_cache: EncoderCache | None = None,
        eos_ids: frozenset[int] = frozenset(),
    ) -> None:
        """`model`: a Qwen2AudioForConditionalGeneration in eval mode that passed `check_same_tokens`; `blocks` of its
        cache; `encoder_cache`: the engine's, where both models have the `same_encoder`; `eos_ids`: tokens that end an
        answer, behind which nothing is proposed."""
        self._owns_encoder_cache = encoder_cache is None
        budget = settings.encoder_cache_bytes if settings.enable_prefix_caching else 0
        self._encoder_cache = encoder_cache or EncoderCache(model, budget, Stats(), adapts=False)
        storage = storage_for(model.language_model, blocks)
        self._runner = ModelRunner(model, storage, self._encoder_cache, adapts=False)
        self._block_manager = BlockManager(storage.blocks, storage.block)
        self._context = int(model.config.text_config.max_position_embeddings)
        self._step_size = StepSizeController(PREFILL_SECONDS, settings.max_num_batched_tokens)
        self._settings, self._eos_ids, self.stats = settings, eos_ids, stats
        self._drafts: dict[Sequence, DraftSequence] = {}
        self._retry_at: dict[Sequence, float] = {}  # length from which a sequence may be drafted for again

    @property
    def busy(self) -> bool:
        """It has clips to encode. The engine encodes those of a shared cache."""
        return self._owns_encoder_cache and self._encoder_cache.busy

    def encode(self, seconds: float) -> None:
        """Encode for about `seconds`."""
        started = time.monotonic()
        self._encoder_cache.encode(seconds)
        self.stats.seconds_draft += time.monotonic() - started

    def new_history(self) -> DraftHistory:
        return DraftHistory(self._settings.num_speculative_tokens)

    def propose(self, wanted: Mapping[Sequence, int]) -> None:
        """Put at most so many draft tokens into `draft_token_ids` of each sequence. Sequences that are not named lose
        their place in the cache. Raises nothing: sequences that it fails for get no draft tokens, now and later."""
        for sequence in [sequence for sequence in self._drafts if sequence not in wanted]:
            self._drop(sequence)
        asked = {
            sequence: count for sequence, count in wanted.items() if count > 0 and self._may_draft(sequence, count)
        }
        if not asked:
            return
        started = time.monotonic()
        try:
            self._propose(asked)
        except Exception as error:  # out of memory, say
            for sequence in asked:
                self._fail(sequence, error)
        self.stats.seconds_draft += time.monotonic() - started

    def count(self, num_proposed: int, num_accepted: int) -> None:
        self.stats.draft_tokens_proposed += num_proposed
        self.stats.draft_tokens_accepted += num_accepted

    def forget(self, sequence: Sequence) -> None:
        """The answer has ended."""
        self._drop(sequence)
        self._retry_at.pop(sequence, None)

    # -- inside

    def _may_draft(self, sequence: Sequence, count: int) -> bool:
        length = len(sequence.prefix_keys)
        return length >= self._retry_at.get(sequence, 0) and length + count <= self._context

    def _propose(self, asked: Mapping[Sequence, int]) -> None:
        ready = [sequence for sequence in asked if self._prepare(sequence)]
        scheduled = self._schedule_prefill(ready)
        sequence_of = {self._drafts[sequence]: sequence for sequence in ready}
        while scheduled:
            tokens, scheduled = self._run(scheduled), []
            for draft, token in tokens.items():
                sequence = sequence_of[draft]
                if token is None:
                    self._fail(sequence, ArithmeticError("its logits are not numbers"))
                    continue
                if token in self._eos_ids:  # if that is right, the answer gets it without a draft token
                    continue
                sequence.draft_token_ids.append(token)
                more = len(sequence.draft_token_ids) < asked[sequence]
                if more and self._block_manager.extend(draft, len(draft.prefix_keys) + 1):
                    draft.prefix_keys.append(token)
                    scheduled.append(ScheduledSequence(draft, draft.computed, 1))

    def _prepare(self, sequence: Sequence) -> bool:
        """Bring its DraftSequence up to date; False if its clips are not encoded, or there is no room."""
        draft = self._drafts.get(sequence) or self._start(sequence)
        draft.follow(sequence.prefix_keys)
        self._block_manager.publish(draft)
        self._block_manager.trim(draft, draft.known)
        if not self._runner.encoder_ready(ScheduledSequence(draft, draft.computed, draft.num_uncomputed)):
            try:
                self._encoder_cache.ready(sequence.request)  # queues the clips
            except Exception as error:
                self._fail(sequence, error)
            return False
        if not self._block_manager.extend(draft, draft.known):
            self.stats.draft_cache_full += 1
            self._retry_at[sequence] = draft.known + RETRY_AFTER
            self._drop(sequence)
            return False
        return True

    def _start(self, sequence: Sequence) -> DraftSequence:
        keys = list(sequence.prefix_keys)
        draft = DraftSequence(sequence.request, sequence.index, keys, known=len(keys))
        self._drafts[sequence] = draft
        if self._owns_encoder_cache:
            self._encoder_cache.acquire(sequence.request)
        self._zero_blocks()
        copy = self._block_manager.allocate(draft)
        if copy is not None:
            self._runner.copy([copy])
            self._block_manager.copied(copy)
        return draft

    def _schedule_prefill(self, ready: list[Sequence]) -> list[ScheduledSequence]:
        """Known tokens that are not computed, as many as fit a step."""
        drafts = [self._drafts[sequence] for sequence in ready]
        budget = max(self._step_size.tokens, len(ready))
        shares = share_out(budget, [draft.num_uncomputed for draft in drafts])
        return [ScheduledSequence(draft, draft.computed, share) for draft, share in zip(drafts, shares, strict=True)]

    def _run(self, scheduled: list[ScheduledSequence]) -> dict[DraftSequence, int | None]:
        """Compute; returns the likeliest next token of each sequence that is at its end, None where that is NaN."""
        self._zero_blocks()
        started = time.monotonic()
        output, num_logits = self._runner.run(scheduled)
        self._step_size.learn(sum(item.count for item in scheduled), time.monotonic() - started)
        greedy = iter(output.greedy)
        tokens: dict[DraftSequence, int | None] = {}
        for item, count in zip(scheduled, num_logits, strict=True):
            assert isinstance(item.sequence, DraftSequence)
            item.sequence.computed = item.start + item.count
            if count:
                token, finite = next(greedy)
                tokens[item.sequence] = token if finite else None
        return tokens

    def _zero_blocks(self) -> None:
        if blocks := self._block_manager.take_blocks_to_zero():
            self._runner.zero(blocks)

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        if not self.stats.draft_failures:
            logger.warning("The draft model failed, and an answer goes on without its draft tokens: %s", error)
        self.stats.draft_failures += 1
        self._retry_at[sequence] = math.inf
        self._drop(sequence, keep=False)

    def _drop(self, sequence: Sequence, *, keep: bool = True) -> None:
        """Release what its DraftSequence holds; `keep`: so that it can be looked up again."""
        draft = self._drafts.pop(sequence, None)
        if draft is not None:
            self._block_manager.release(draft, keep=keep and self._settings.enable_prefix_caching)
            if self._owns_encoder_cache:
                self._encoder_cache.release(sequence.request)


def check_same_tokens(model: Qwen2AudioConfig, draft: Qwen2AudioConfig) -> None:
    """Raises ConfigError where the ids of `draft` are not those of `model`."""
    pairs = {
        "a vocabulary of {} tokens": (draft.text_config.vocab_size, model.text_config.vocab_size),
        "{} for a position of sound": (draft.audio_token_index, model.audio_token_index),
    }
    for words, (of_draft, of_model) in pairs.items():
        if of_draft != of_model:
            raise ConfigError(
                f"The draft has {words.format(of_draft)} and the model has {words.format(of_model)}; a draft must be "
                "made for the same tokenizer."
            )


def same_encoder(model: EngineModel, draft: EngineModel) -> bool:
    """Encoder and projector of both are equal, number by number, so that they can share an encoder cache."""
    return all(
        _equal_states(getattr(model, part).state_dict(), getattr(draft, part).state_dict())
        for part in ("audio_tower", "multi_modal_projector")
    )


def _equal_states(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(_equal(value, second[name]) for name, value in first.items())


def _equal(first: Any, second: Any) -> bool:
    if not isinstance(first, torch.Tensor):
        return bool(first == second)
    return first.dtype == second.dtype and first.device == second.device and torch.equal(first, second)
