"""What the engine needs of a model. `pretrained.Qwen2AudioForConditionalGeneration` has it; tests have small ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import nn

from ..checkpoint.config import Qwen2AudioConfig
from ..generate.config import GenerationConfig
from ..model.encoder import Qwen2AudioEncoder
from ..model.language_model import Qwen2LanguageModel


class EngineModel(Protocol):
    """A Qwen2-Audio model in eval mode: configuration, encoder, projector and language model.

    A audio clips, F mel frames, N audio tokens of all clips together, H the language model's width.
    """

    @property
    def config(self) -> Qwen2AudioConfig: ...

    @property
    def generation_config(self) -> GenerationConfig: ...

    @property
    def audio_tower(self) -> Qwen2AudioEncoder: ...

    @property
    def multi_modal_projector(self) -> nn.Module: ...

    @property
    def language_model(self) -> Qwen2LanguageModel: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def training(self) -> bool: ...

    @property
    def encoder_mask(self) -> bool:
        """The encoder masks padded frames, as the reference does."""

    def get_input_embeddings(self) -> Any:
        """The embedding of token ids: int64 [..., T] to [..., T, H]."""

    def encode_audio(
        self, input_features: torch.Tensor, feature_attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, list[int]]:
        """Log-mels [A, mel bins, F] and their mask [A, F] to embeddings [N, H], and each clip's tokens."""

    def get_submodule(self, target: str) -> nn.Module:
        """The module at a path such as "language_model.model.layers.0"."""

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...

    def buffers(self, recurse: bool = True) -> Iterator[torch.Tensor]: ...
