"""What conversations leave behind for the next one, so that a second question about a clip is cheap.

Two things are kept, within one budget of bytes, the longest unused going first:

    a clip's embeddings   found again by the log-mel's digest: the encoder does not run twice for one sound
    a conversation's KV cache, with one key a position (its token, or its clip's digest): the next prompt that begins
    with the same keys computes only what comes after them

        first    system  <clip>  "What is it?"     answer
        second   system  <clip>  "How often?"
                 |-- from the cache --|  computed
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import torch

from ..engine.request import Prompt
from ..engine.sounds import stack_clips
from ..generate.decode import ROOM, Reading

if TYPE_CHECKING:
    from ..model.cache import KVCache
    from ..pretrained import Qwen2AudioForConditionalGeneration

BUDGET = 10**9  # bytes
CONVERSATIONS = 32  # at most, however small: each is compared with every new prompt


@dataclass(frozen=True)
class Conversation:
    """A prompt and its answer as the model read them."""

    keys: list[int]  # one a position of the cache
    cache: KVCache

    @property
    def nbytes(self) -> int:
        return self.cache.nbytes


@dataclass(frozen=True)
class Begun:
    """A prompt about to be answered. Its cache belongs to this answer alone until `Reuse.keep`."""

    keys: list[int]  # of the whole prompt
    reading: Reading
    cached: int  # positions that need not be computed
    state: int  # of the model, see `_state_of`


class Reuse:
    """The memory of one loaded model. Any number of threads may use it: what one of them takes is gone for the others.

    Attributes: `budget` in bytes; `clips_encoded` counts the clips that the encoder ran for.
    """

    def __init__(self, model: Qwen2AudioForConditionalGeneration, budget: int = BUDGET) -> None:
        self._model = model
        self.budget = budget
        self.clips_encoded = 0
        self._lock = Lock()
        self._held: OrderedDict[Any, Conversation | torch.Tensor] = OrderedDict()  # the longest unused first
        self._state = _state_of(model)

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        return sum(entry.nbytes for entry in self._held.values())

    def forget(self) -> None:
        """Drop everything. (Weights that were changed in place or replaced are noticed without it.)"""
        with self._lock:
            self._held.clear()

    @torch.no_grad()
    def begin(self, prompt: Prompt, max_new: int) -> Begun:
        """What `generate(reading=...)` needs to answer `prompt` with up to `max_new` tokens."""
        digests = prompt.digests
        keys = prompt.keys(self._model.config.audio_token_index)
        state = _state_of(self._model)
        capacity = len(keys) + min(max_new, ROOM)
        with self._lock:
            if state != self._state:
                self._held.clear()
                self._state = state
            cache = self._take(keys, capacity)
        if cache is None:
            cache = self._model.new_cache(1, capacity)
            with self._lock:
                self._make_room(cache.nbytes)
        return Begun(keys, Reading(cache, self._embed(prompt, digests, cache.length)), cache.length, state)

    def keep(self, begun: Begun, sequence: list[int]) -> None:
        """Keep the cache of a finished answer; `sequence` is the prompt's ids and the answer's."""
        cache = begun.reading.cache
        keys = (begun.keys + sequence[len(begun.keys) :])[: cache.length]
        with self._lock:
            if begun.state != self._state or cache.nbytes > self.budget:
                return
            for key, entry in list(self._held.items()):
                if isinstance(entry, Conversation) and entry.keys == keys[: len(entry.keys)]:
                    del self._held[key]  # the new one says all of it
            self._make_room(cache.nbytes)
            self._held[id(cache)] = Conversation(keys, cache)
            conversations = [key for key, entry in self._held.items() if isinstance(entry, Conversation)]
            for key in conversations[:-CONVERSATIONS]:
                del self._held[key]

    def _take(self, keys: list[int], capacity: int) -> KVCache | None:
        """The cache of the longest beginning that `keys` share with a conversation; None where none does."""
        best, shared = None, 0
        for key, entry in self._held.items():
            if isinstance(entry, Conversation) and (same := _common(entry.keys, keys[:-1])) > shared:
                best, shared = key, same
        if best is None:
            return None
        entry = self._held[best]
        assert isinstance(entry, Conversation)
        if 2 * shared >= len(entry.keys):
            del self._held[best]  # moved, not copied: memory holds one cache
            entry.cache.crop(shared)
            return entry.cache
        # Most of that conversation is something else, which it may go on with: it keeps its cache, and this is a copy.
        copied = entry.cache.copy(shared, capacity)
        self._make_room(copied.nbytes)
        return copied

    def _embed(self, prompt: Prompt, digests: list[int], start: int) -> torch.Tensor:
        """[1, T - start, H]: the embeddings of the positions from `start` on."""
        ids = torch.tensor([prompt.ids], device=self._model.device)
        is_audio = ids == self._model.config.audio_token_index
        before = int(is_audio[:, :start].sum())
        embeds = self._model.get_input_embeddings()(ids[:, start:])
        if before == prompt.audio_tokens:
            return embeds  # type: ignore[no-any-return]
        skipped, first = 0, 0  # clips that lie wholly before `start`, and their positions
        while first + prompt.heard[skipped].tokens <= before:
            first += prompt.heard[skipped].tokens
            skipped += 1
        audio = torch.cat(self._sounds(prompt, digests, skipped))[before - first :]
        return embeds.masked_scatter(is_audio[:, start:, None], audio.to(embeds))  # type: ignore[no-any-return]

    def _sounds(self, prompt: Prompt, digests: list[int], skipped: int) -> list[torch.Tensor]:
        """The embeddings [N, H] of each clip but the first `skipped`. Those not held are encoded, together."""
        found: dict[int, torch.Tensor] = {}
        with self._lock:
            for digest in digests[skipped:]:
                if isinstance(entry := self._held.get(digest), torch.Tensor):
                    self._held.move_to_end(digest)
                    found[digest] = entry
        missing = {digest: i for i, digest in enumerate(digests) if i >= skipped and digest not in found}
        if missing:
            features = stack_clips(
                [prompt.clips[i] for i in missing.values()], [prompt.frames[i] for i in missing.values()]
            )
            audio, tokens = self._model.encode_audio(features["input_features"], features["feature_attention_mask"])
            self.clips_encoded += len(missing)
            new = dict(zip(missing, audio.split(tokens), strict=True))
            found |= new
            with self._lock:
                for digest, embeds in new.items():
                    if embeds.nbytes <= self.budget:
                        self._make_room(embeds.nbytes)
                        self._held[digest] = embeds.clone()  # on its own, or it would hold all of them
        return [found[digest] for digest in digests[skipped:]]

    def _make_room(self, nbytes: int) -> None:
        while self._held and self.nbytes + nbytes > self.budget:
            self._held.popitem(last=False)


def _common(one: list[int], other: list[int]) -> int:
    """How many keys two lists begin with in common."""
    length = min(len(one), len(other))
    return next((i for i in range(length) if one[i] != other[i]), length)


def _state_of(model: Any) -> int:
    """Changes when a weight is written to or replaced, as attaching an adapter or a training step does."""
    tensors = (*model.parameters(), *model.buffers())
    return hash((model.training, model.encoder_mask, *((id(t), t._version) for t in tensors)))
