"""A second, smaller checkpoint that hears the same clips and guesses what an answer will say next.

    answer       the prompt, and what was said         ... the  dog          its sequence in the engine
    its shadow   the same in the draft's own cache     ... the  dog | barks  at        guesses behind `known`

A step: every shadow catches up with its answer, all in one pass; then single tokens for all of them at once. What an
answer took instead of a guess is noticed at the next step, and the shadow cut back. The draft can only cost time: where
it has no room, fails or says NaN, the answer goes on without it.
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

from ...errors import ConfigError
from ...native.paged import storage_for
from ..block_manager import BlockPool
from ..encoder_cache import Sounds
from ..executor.model_runner import Runner
from ..metrics import Stats
from ..request import Sequence
from ..scheduler import Part, share_out
from ..settings import EngineSettings
from ..step_size import Pace

CATCH_UP = 0.05  # seconds of the draft's prefill a step: so long may answers wait for guesses that others will have
AGAIN = 64  # tokens after which an answer that found no room asks once more

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Shadow(Sequence):
    """An answer as the draft has it: the first `known` of its keys are the answer's own."""

    known: int = 0

    def follow(self, keys: list[int]) -> None:
        """Become `keys`: what was guessed otherwise is forgotten, the rest of the guesses stays computed."""
        pairs = zip(self.keys[self.known :], keys[self.known :], strict=False)
        right = self.known + sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        del self.keys[right:]
        self.keys += keys[right:]
        self.known = len(keys)
        self.computed = min(self.computed, right, self.known - 1)  # one is left, or there were no logits


class Draft:
    """Guesses for the engine's sequences, greedily, by a model that knows nothing of the engine's own."""

    def __init__(
        self,
        model: Any,
        blocks: int,
        settings: EngineSettings,
        stats: Stats,
        *,
        sounds: Sounds | None = None,
        ends: frozenset[int] = frozenset(),
    ) -> None:
        """`model`: a Qwen2AudioForConditionalGeneration in eval mode that `check` was content with; `blocks` of its
        cache; `sounds`: of the engine, where its encoder is the draft's too (`hears_alike`); `ends`: tokens that end an
        answer, so that nothing behind them is guessed."""
        self._own_sounds = sounds is None
        self._sounds = sounds or Sounds(model, settings.sounds_bytes if settings.reuse else 0, Stats())
        storage = storage_for(model.language_model, blocks)
        self._runner = Runner(model, storage, self._sounds)
        self._pool = BlockPool(storage.blocks, storage.block)
        self._context = int(model.config.text_config.max_position_embeddings)
        self._pace = Pace(CATCH_UP, settings.step_tokens)
        self._reuse, self._ends, self.stats = settings.reuse, ends, stats
        self._shadows: dict[Sequence, _Shadow] = {}
        self._later: dict[Sequence, float] = {}  # positions before which these go without

    @property
    def busy(self) -> bool:
        """It has sounds to encode. Those of the engine are the engine's business."""
        return self._own_sounds and self._sounds.busy

    def hear(self, seconds: float) -> None:
        """Encode for about `seconds`."""
        started = time.monotonic()
        self._sounds.work(seconds)
        self.stats.seconds_draft += time.monotonic() - started

    def guess(self, wanted: Mapping[Sequence, int]) -> None:
        """Put up to so many guesses into the `guesses` of each that decodes; those that are not named give up their
        place in the cache. Raises nothing: those that it fails for have none, now and later."""
        for gone in [one for one in self._shadows if one not in wanted]:
            self._leave(gone)
        asked = {one: count for one, count in wanted.items() if count > 0 and self._may(one, count)}
        if not asked:
            return
        started = time.monotonic()
        try:
            self._guess(asked)
        except Exception as error:  # memory, say
            for one in asked:
                self._fail(one, error)
        self.stats.seconds_draft += time.monotonic() - started

    def forget(self, sequence: Sequence) -> None:
        """It has ended."""
        self._leave(sequence)
        self._later.pop(sequence, None)

    # -- inside

    def _may(self, sequence: Sequence, count: int) -> bool:
        length = len(sequence.keys)
        return length >= self._later.get(sequence, 0) and length + count <= self._context

    def _guess(self, asked: Mapping[Sequence, int]) -> None:
        ready = [one for one in asked if self._prepare(one)]
        parts = self._catch_up(ready)
        of = {self._shadows[one]: one for one in ready}
        while parts:
            said, parts = self._say(parts), []
            for shadow, token in said.items():
                sequence = of[shadow]
                if token is None:
                    self._fail(sequence, ArithmeticError("its logits are not numbers"))
                    continue
                if token in self._ends:  # if that is right, the answer gets it without a guess
                    continue
                sequence.guesses.append(token)
                if len(sequence.guesses) < asked[sequence] and self._pool.extend(shadow, len(shadow.keys) + 1):
                    shadow.keys.append(token)
                    parts.append(Part(shadow, shadow.computed, 1))

    def _prepare(self, sequence: Sequence) -> bool:
        """Its shadow follows it, has heard its clips and has room for what is known."""
        shadow = self._shadows.get(sequence) or self._begin(sequence)
        shadow.follow(sequence.keys)
        self._pool.note(shadow)
        self._pool.crop(shadow, shadow.known)
        if not self._runner.heard(Part(shadow, shadow.computed, shadow.left)):
            try:
                self._sounds.ready(sequence.request)  # in line
            except Exception as error:
                self._fail(sequence, error)
            return False
        if not self._pool.extend(shadow, shadow.known):
            self.stats.draft_without_room += 1
            self._later[sequence] = shadow.known + AGAIN
            self._leave(sequence)
            return False
        return True

    def _begin(self, sequence: Sequence) -> _Shadow:
        shadow = _Shadow(sequence.request, sequence.index, list(sequence.keys), known=len(sequence.keys))
        self._shadows[sequence] = shadow
        if self._own_sounds:
            self._sounds.want(sequence.request)
        self._clear()
        copy = self._pool.begin(shadow)
        if copy is not None:
            self._runner.copy([copy])
            self._pool.copied(copy)
        return shadow

    def _catch_up(self, ready: list[Sequence]) -> list[Part]:
        """What is known and not computed yet, as much of it as a step allows."""
        shadows = [self._shadows[one] for one in ready]
        shares = share_out(max(self._pace.tokens, len(ready)), [one.left for one in shadows])
        return [Part(one, one.computed, share) for one, share in zip(shadows, shares, strict=True)]

    def _say(self, parts: list[Part]) -> dict[_Shadow, int | None]:
        """Compute the parts: the likeliest next token of each that is at its end, None where that is NaN."""
        self._clear()
        started = time.monotonic()
        found, wanted = self._runner.run(parts)
        tokens = iter(found.greedy)
        self._pace.learn(sum(part.count for part in parts), time.monotonic() - started)
        said: dict[_Shadow, int | None] = {}
        for part, count in zip(parts, wanted, strict=True):
            assert isinstance(part.sequence, _Shadow)
            part.sequence.computed = part.start + part.count
            if count:
                token, finite = next(tokens)
                said[part.sequence] = token if finite else None
        return said

    def _clear(self) -> None:
        if spoiled := self._pool.take_spoiled():
            self._runner.clear(spoiled)

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        if not self.stats.draft_failures:
            logger.warning("The draft failed, and an answer goes on without its guesses: %s", error)
        self.stats.draft_failures += 1
        self._later[sequence] = math.inf
        self._leave(sequence, keep=False)

    def _leave(self, sequence: Sequence, *, keep: bool = True) -> None:
        """Give back what its shadow holds; `keep`: findable, if it may come again."""
        shadow = self._shadows.pop(sequence, None)
        if shadow is not None:
            self._pool.release(shadow, keep=keep and self._reuse)
            if self._own_sounds:
                self._sounds.drop(sequence.request)


def check(model: Any, draft: Any) -> None:
    """Raises ConfigError where the ids of `draft` are not those of `model`."""
    pairs = {
        "a vocabulary of {} tokens": (draft.text_config.vocab_size, model.text_config.vocab_size),
        "{} for a position of sound": (draft.audio_token_index, model.audio_token_index),
    }
    for words, (theirs, ours) in pairs.items():
        if theirs != ours:
            raise ConfigError(
                f"The draft has {words.format(theirs)} and the model has {words.format(ours)}; a draft must be made "
                "for the same tokenizer."
            )


def hears_alike(model: Any, draft: Any) -> bool:
    """Encoder and projector are the same, number by number: what one has heard is good for the other."""
    return all(
        _equal(getattr(model, part).state_dict(), getattr(draft, part).state_dict())
        for part in ("audio_tower", "multi_modal_projector")
    )


def _equal(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    return ours.keys() == theirs.keys() and all(_same(one, theirs[name]) for name, one in ours.items())


def _same(one: Any, other: Any) -> bool:
    if not isinstance(one, torch.Tensor):
        return bool(one == other)
    return one.dtype == other.dtype and one.device == other.device and torch.equal(one, other)
