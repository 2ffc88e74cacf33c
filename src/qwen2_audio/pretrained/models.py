"""The three public classes."""

from __future__ import annotations

import torch
from torch import nn

from ..checkpoint import weights
from ..checkpoint.config import Qwen2AudioConfig, Qwen2AudioEncoderConfig
from ..generate.config import GenerationConfig
from ..model import encoder, qwen2_audio
from ..model.initialize import initialize
from .embeddings import EmbeddingMethods
from .generation_mixin import GenerationMixin
from .loading import Pretrained
from .model_methods import ModelMethods


class Qwen2AudioEncoder(Pretrained, ModelMethods, encoder.Qwen2AudioEncoder):
    """The audio encoder, from its own checkpoint or from that of a complete model."""

    config_class = Qwen2AudioEncoderConfig
    part = weights.ENCODER
    main_input_name = "input_features"

    def __init__(self, config: Qwen2AudioEncoderConfig) -> None:
        super().__init__(config)
        self.init_weights()

    @property
    def device(self) -> torch.device:
        return self.conv1.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.conv1.weight.dtype

    def init_weights(self) -> None:
        named = nn.ModuleDict({"audio_tower": self})
        initialize(named, Qwen2AudioConfig(audio_config=self.config))

    def get_input_embeddings(self) -> nn.Conv1d:
        return self.conv1

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.conv1 = value  # type: ignore[assignment]


class Qwen2AudioModel(Pretrained, EmbeddingMethods, ModelMethods, qwen2_audio.Qwen2AudioModel):
    """The model without its head."""

    ignored = (weights.HEAD,)


class Qwen2AudioForConditionalGeneration(
    Pretrained, GenerationMixin, EmbeddingMethods, ModelMethods, qwen2_audio.Qwen2AudioForConditionalGeneration
):
    """The complete model. `generation_config` holds the checkpoint's settings for `generate`."""

    generation_config: GenerationConfig

    def __init__(self, config: Qwen2AudioConfig) -> None:
        super().__init__(config)
        text = config.text_config
        self.generation_config = GenerationConfig(
            bos_token_id=text.bos_token_id, eos_token_id=text.eos_token_id, pad_token_id=text.pad_token_id
        )
