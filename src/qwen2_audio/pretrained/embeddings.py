"""The embeddings of token ids and of clips, and the head: read, replaced, tied, resized for tokens that were added."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..audio.mel import num_audio_tokens
from ..distributed.tensor_parallel import tensor_parallel_group
from ..errors import ConfigError
from ..lora import Adapter
from ..model import qwen2_audio
from ..model.language_model import Qwen2LanguageModel
from ..model.outputs import AudioFeatures, as_asked

NOISE = 1e-9**0.5  # deviation of new rows from the mean of the old ones, in units of the old ones' (the reference's)


class EmbeddingMethods(qwen2_audio.Qwen2AudioModel):
    """Mixin of the classes with a language model."""

    @property
    def vocab_size(self) -> int:
        return int(self.config.text_config.vocab_size)

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.model.embed_tokens = value  # type: ignore[assignment]

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.language_model.lm_head = new_embeddings  # type: ignore[assignment]

    def get_audio_features(
        self,
        input_features: torch.Tensor,
        feature_attention_mask: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """What the encoder and the projector make of clips; the arguments are those of `encode_audio` and `forward`.

        Returns:
            AudioFeatures: whole windows as the reference's encoder returns them, and as `pooler_output` the embeddings
            [sum of N_a, H] that take the place of the placeholders.
        """
        lengths = self.mel_lengths(input_features, feature_attention_mask)
        features = input_features.to(self.audio_tower.conv1.weight)
        out = self.encode_windows(
            features, lengths, output_attentions=output_attentions, output_hidden_states=output_hidden_states
        )
        windows = zip(self.multi_modal_projector(out.last_hidden_state), map(num_audio_tokens, lengths), strict=True)
        embeds = torch.cat([clip[:n] for clip, n in windows])
        result = AudioFeatures(out.last_hidden_state, embeds, out.hidden_states, out.attentions)
        return as_asked(result, return_dict, self.config)

    def get_decoder(self) -> Qwen2LanguageModel:
        return self.language_model

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        """The audio encoder for modality "audio"; None as modality asks for a text encoder, which is the model."""
        return self.get_submodule("audio_tower") if modality == "audio" else self

    def tie_weights(self, **_: Any) -> None:
        """Let the head share the embedding's weight where the config says so."""
        head = self.get_output_embeddings()
        if head is not None and self.config.tied:
            head.weight = self.get_input_embeddings().weight

    @torch.no_grad()
    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """Change the vocabulary to `new_num_tokens`, keeping the rows of ids that stay, in the embedding and the head.

        Args:
            new_num_tokens: None: as many as now.
            pad_to_multiple_of: round up to a multiple of this.
            mean_resizing: draw new rows around the mean of the old ones, so that the model hardly prefers new tokens
                (https://nlp.stanford.edu/~johnhew/vocab-expansion.html). False: as initial weights.

        Returns:
            The embedding, which is resized in place, as the head is.

        Raises:
            ConfigError: a number that cannot be; a model that is quantised, divided among processes, or has an adapter
                on its embedding or head.
        """
        embedding, head = self.get_input_embeddings(), self.get_output_embeddings()
        plain = type(embedding) is nn.Embedding and (head is None or _is_plain_linear(head))
        if not plain or tensor_parallel_group(self) is not None:
            raise ConfigError(
                "The vocabulary of this model cannot be resized: it is quantised, divided among processes, or has an "
                "adapter on its embedding or head; resize the plain model first."
            )
        size = _padded(embedding.num_embeddings if new_num_tokens is None else new_num_tokens, pad_to_multiple_of)
        tied = head is not None and head.weight is embedding.weight
        text = self.config.text_config
        deviation = None if mean_resizing else text.initializer_range
        embedding.weight = _resized(embedding.weight, size, deviation)
        embedding.num_embeddings = size
        if head is not None:
            head.weight = embedding.weight if tied else _resized(head.weight, size, deviation)
            head.out_features = size
        text.vocab_size = size
        if "vocab_size" in vars(self.config):  # the official files name it twice
            self.config.vocab_size = size
        return embedding


def _is_plain_linear(head: nn.Module) -> bool:
    return isinstance(head, nn.Linear) and not isinstance(head, Adapter)


def _padded(size: int, multiple: int | None) -> int:
    for name, value in (("new_num_tokens", size), ("pad_to_multiple_of", 1 if multiple is None else multiple)):
        if type(value) is not int or value < 1:
            raise ConfigError(f"{name} is {value!r}; expected a whole number above 0.")
    return size if multiple is None else -(-size // multiple) * multiple


def _resized(old: torch.Tensor, size: int, deviation: float | None) -> nn.Parameter:
    """`old` [V, H] with `size` rows. New ones are N(0, deviation), or near the mean of the old ones for None."""
    assert isinstance(old, nn.Parameter)
    if size == len(old):
        return old
    weight = old[:size]
    if size > len(old):
        drawn = torch.randn(size - len(old), old.shape[1], device=old.device)
        if deviation is None:
            rows = old.float()
            drawn = rows.mean(0) + drawn * rows.std(0) * NOISE
        else:
            drawn *= deviation
        weight = torch.cat((weight, drawn.to(old.dtype)))
    return nn.Parameter(weight.clone(), requires_grad=old.requires_grad)
