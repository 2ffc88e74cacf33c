"""The peer of `bench engine`: transformers, all requests as one padded batch. Imported in a worker only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from qwen2_audio.audio.mel import num_audio_tokens, num_frames
from qwen2_audio.checkpoint.config import Qwen2AudioConfig

from ..engine.scripts import ids_of


class PaddedBatch:
    """Prompts padded on the left to the longest, clips to 30 s, as its documentation says."""

    def __init__(self, folder: Path, device: str, dtype: torch.dtype) -> None:
        transformers.logging.set_verbosity_error()
        model = transformers.Qwen2AudioForConditionalGeneration.from_pretrained(
            folder, dtype=dtype, local_files_only=True
        )
        self._model: Any = model.eval().to(device)
        self._model.generation_config.eos_token_id = None
        self._extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder, local_files_only=True)
        self._config = Qwen2AudioConfig.from_pretrained(folder)

    def answer(self, sounds: Sequence[np.ndarray], new_tokens: int) -> list[list[int]]:
        """Greedy, exactly `new_tokens` to each."""
        rows = [ids_of(self._config, num_audio_tokens(num_frames(len(sound)))) for sound in sounds]
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        features = self._extractor(
            list(sounds), sampling_rate=16_000, return_attention_mask=True, padding="max_length", return_tensors="pt"
        )
        device, dtype = self._model.device, self._model.dtype
        out = self._model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            input_features=features.input_features.to(device, dtype),
            feature_attention_mask=features.attention_mask.to(device),
            do_sample=False,
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
        )
        answers: list[list[int]] = out[:, width:].tolist()
        return answers
