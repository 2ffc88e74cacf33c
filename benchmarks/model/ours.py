"""Our side, doing what the short API does: only the frames that are sound are computed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from .implementation import Features, TokenStreamer
from .random_past import random_past

if TYPE_CHECKING:
    from qwen2_audio.model.cache import KVCache
    from qwen2_audio.model.merge import EmbeddedPrompt
    from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration


class CachedPrompt:
    """A model for `generate` whose prompt is in `cache` already, except for its last position."""

    def __init__(self, model: Qwen2AudioForConditionalGeneration, cache: KVCache) -> None:
        self._model, self._cache = model, cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def new_cache(self, batch: int, capacity: int = 0) -> KVCache:
        return self._cache

    def embed_prompt(self, input_ids: torch.Tensor, *unused: Any) -> EmbeddedPrompt:
        from qwen2_audio.model.merge import EmbeddedPrompt

        last = self._model.get_input_embeddings()(input_ids[:, -1:])
        return EmbeddedPrompt(input_ids, torch.ones_like(input_ids), last)


class Ours:
    """This package's `generate`, on a plain checkpoint in fp32 or on a quantised one."""

    def __init__(self) -> None:
        from qwen2_audio import pretrained
        from qwen2_audio.audio import mel

        self._pretrained, self._mel = pretrained, mel
        self._model: Qwen2AudioForConditionalGeneration | None = None

    @property
    def model(self) -> Qwen2AudioForConditionalGeneration:
        assert self._model is not None, "load() comes first"
        return self._model

    def load(self, folder: Path) -> None:
        self._model = self._pretrained.Qwen2AudioForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)

    def log_mel(self, waveform: npt.NDArray[np.float32]) -> Features:
        mel = torch.from_numpy(self._mel.log_mel(waveform))[None]
        mask = torch.zeros((1, mel.shape[-1]), dtype=torch.int32)
        mask[:, : self._mel.num_frames(len(waveform))] = 1
        return Features(mel, mask)

    def encode(self, features: Features) -> torch.Tensor:
        return self.model.encode_audio(features.log_mel, features.mask)[0]

    def generate(self, ids: torch.Tensor, features: Features, new_tokens: int, streamer: TokenStreamer) -> torch.Tensor:
        clips = {"input_features": features.log_mel, "feature_attention_mask": features.mask}
        return self.answer(ids, new_tokens, streamer, **clips)

    def generate_after_past(self, ids: torch.Tensor, new_tokens: int, streamer: TokenStreamer) -> torch.Tensor:
        cached = CachedPrompt(self.model, self.past_cache(ids.shape[1] - 1, new_tokens))
        return self.answer(ids, new_tokens, streamer, model=cached)

    def answer(
        self, ids: torch.Tensor, new_tokens: int, streamer: TokenStreamer, model: Any = None, **inputs: Any
    ) -> torch.Tensor:
        """Greedy, exactly `new_tokens`. `model`: what generates; None: the loaded model."""
        from qwen2_audio.generate.generate import generate

        return generate(  # type: ignore[return-value]
            model or self.model,
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            streamer=streamer,
            **inputs,
        )

    def past_cache(self, length: int, new_tokens: int) -> KVCache:
        """A cache of `length` positions that were never computed, with space for `new_tokens` more."""
        cache = self.model.new_cache(1, length + new_tokens)
        for layer, keys, values in random_past(self.model.config.text_config, length):
            cache.update(layer, keys, values)
        return cache
