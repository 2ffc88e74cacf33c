"""Our side, doing what the short API does: only the frames that are sound are computed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from .contestant import Features, Stopwatch

if TYPE_CHECKING:
    from ..pretrained import Qwen2AudioForConditionalGeneration


class Ours:
    """This package's readable path (`generate/`)."""

    def __init__(self) -> None:
        from .. import pretrained
        from ..audio import mel

        self._pretrained, self._mel = pretrained, mel
        self._model: Qwen2AudioForConditionalGeneration | None = None

    @property
    def model(self) -> Qwen2AudioForConditionalGeneration:
        assert self._model is not None, "load() comes first"
        return self._model

    def load(self, folder: Path) -> None:
        self._model = self._pretrained.Qwen2AudioForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)

    def log_mel(self, clip: npt.NDArray[np.float32]) -> Features:
        mel = torch.from_numpy(self._mel.log_mel(clip))[None]
        mask = torch.zeros((1, mel.shape[-1]), dtype=torch.int32)
        mask[:, : self._mel.num_frames(len(clip))] = 1
        return Features(mel, mask)

    def encode(self, features: Features) -> torch.Tensor:
        return self.model.encode_audio(features.log_mel, features.mask)[0]

    def generate(self, ids: torch.Tensor, features: Features, new_tokens: int, stopwatch: Stopwatch) -> torch.Tensor:
        return self.model.generate(  # type: ignore[no-any-return]
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            input_features=features.log_mel,
            feature_attention_mask=features.mask,
            do_sample=False,
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            streamer=stopwatch,
        )
