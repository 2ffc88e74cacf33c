"""The model benchmark's peer in its own process: transformers, doing what its documentation says.

Run as `python -m benchmarks.peers.transformers_model THREADS`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from qwen2_audio.checkpoint.config import Qwen2AudioConfig

from ..harness.torch_worker import run_torch_worker
from ..model.implementation import Features, TokenStreamer
from ..model.random_past import random_past
from ..model.session import Session


class Transformers:
    """The reference library: features padded to the 30 s window, all 1500 encoder frames computed."""

    def __init__(self) -> None:
        import transformers

        transformers.logging.set_verbosity_error()
        self._model_class = transformers.Qwen2AudioForConditionalGeneration  # imports its code now, not in load()
        self._extractor_class = transformers.WhisperFeatureExtractor
        self._cache_class = transformers.DynamicCache
        self._model: Any = None
        self._text_config = Qwen2AudioConfig().text_config
        self._extractor: Any = None

    def load(self, folder: Path) -> None:
        self._model = self._model_class.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
        self._extractor = self._extractor_class.from_pretrained(folder, local_files_only=True)
        self._text_config = Qwen2AudioConfig.from_pretrained(folder).text_config

    def log_mel(self, waveform: npt.NDArray[np.float32]) -> Features:
        out = self._extractor(
            waveform, sampling_rate=16_000, return_attention_mask=True, padding="max_length", return_tensors="pt"
        )
        return Features(out.input_features, out.attention_mask)

    def encode(self, features: Features) -> torch.Tensor:
        frames = (int(features.mask.sum()) - 1) // 2 + 1
        window = self._model.config.audio_config.max_source_positions
        # Its own forward builds the same mask from the lengths: every query sees the valid keys.
        visible = (torch.arange(window) < frames).expand(1, 1, window, window)
        out = self._model.model.audio_tower(features.log_mel, attention_mask=visible)
        return self._model.model.multi_modal_projector(out.last_hidden_state)[0]  # type: ignore[no-any-return]

    def generate(self, ids: torch.Tensor, features: Features, new_tokens: int, streamer: TokenStreamer) -> torch.Tensor:
        clips = {"input_features": features.log_mel, "feature_attention_mask": features.mask}
        return self._answer(ids, new_tokens, streamer, **clips)

    def generate_after_past(self, ids: torch.Tensor, new_tokens: int, streamer: TokenStreamer) -> torch.Tensor:
        cache = self._cache_class(config=self._model.config.text_config)
        for layer, keys, values in random_past(self._text_config, ids.shape[1] - 1):
            cache.update(keys, values, layer)
        return self._answer(ids, new_tokens, streamer, past_key_values=cache)

    def _answer(self, ids: torch.Tensor, new_tokens: int, streamer: TokenStreamer, **inputs: Any) -> torch.Tensor:
        return self._model.generate(  # type: ignore[no-any-return]
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            streamer=streamer,
            **inputs,
        )


if __name__ == "__main__":
    run_torch_worker(lambda threads: Session(Transformers))
