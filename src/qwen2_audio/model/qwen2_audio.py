"""Qwen2-Audio: encoder, projector, merge, language model, loss.

B rows, T prompt positions, A clips in the whole batch, F mel frames, H width, V vocabulary.
Attribute names are those of the checkpoint: `audio_tower`, `multi_modal_projector`, `language_model`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..audio.mel import num_audio_tokens, num_encoder_frames
from ..checkpoint.config import Qwen2AudioConfig
from ..errors import AudioError, ConfigError, PromptError
from .attention import check_implementation
from .cache import KVCache, check_cache
from .encoder import Qwen2AudioEncoder, Qwen2AudioMultiModalProjector, listened_to, pad_to_window
from .initialize import initialize
from .language_model import Qwen2LanguageModel
from .merge import EmbeddedPrompt, check_tensor, find_slots, position_ids_of
from .outputs import LanguageModelOutput, Qwen2AudioCausalLMOutput, Qwen2AudioModelOutput, as_asked, chosen


@dataclass
class Inputs:
    """The tensors of a forward call; shapes as in `Qwen2AudioForConditionalGeneration.forward`."""

    input_ids: torch.Tensor | None
    input_features: torch.Tensor | None
    attention_mask: torch.Tensor | None
    feature_attention_mask: torch.Tensor | None
    position_ids: torch.Tensor | None
    inputs_embeds: torch.Tensor | None
    labels: torch.Tensor | None


class Qwen2AudioModel(nn.Module):
    """The model without its head; it returns hidden states."""

    has_head = False

    def __init__(self, config: Qwen2AudioConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder_mask = True  # False: attend to padded frames too, as some runtimes do; for comparison only
        self.audio_tower = Qwen2AudioEncoder(config.audio_config)
        self.multi_modal_projector = Qwen2AudioMultiModalProjector(config)
        self.language_model = Qwen2LanguageModel(config.text_config, head=self.has_head, tied=config.tied)
        for part in (config, config.audio_config, config.text_config):
            check_implementation(part._attn_implementation)
        initialize(self, config)

    @property
    def device(self) -> torch.device:
        return self.language_model.model.norm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.language_model.model.norm.weight.dtype

    def get_input_embeddings(self) -> nn.Embedding:
        return self.language_model.model.embed_tokens

    def get_output_embeddings(self) -> nn.Linear | None:
        """The head; None for a model without one."""
        return self.language_model.lm_head

    def set_attn_implementation(self, names: str | dict[str, str]) -> None:
        """Set "eager", "sdpa" or "flash_attention_2" for all parts, or as {"text_config": ..., "audio_config": ...}.

        Raises ConfigError for one that cannot run here.
        """
        for name in names.values() if isinstance(names, dict) else (names,):
            check_implementation(name)
        self.config._attn_implementation = names  # type: ignore[assignment]

    def new_cache(self, batch: int, capacity: int = 0) -> KVCache:
        """An empty KV cache for `batch` rows that holds `capacity` positions before it grows."""
        return self.language_model.new_cache(batch, capacity)

    def encode_audio(
        self, input_features: torch.Tensor, feature_attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, list[int]]:
        """Log-mel to audio embeddings of the language model's width.

        Args:
            input_features: [A, mel bins, F], with F the full window or at least what the longest clip needs.
            feature_attention_mask: 0/1 [A, >= valid frames]; 1 marks a valid mel frame.

        Returns:
            The projected embeddings [sum of N_a, H] of all clips, concatenated, and N_a of each clip.

        Raises:
            PromptError: features without a mask.
            AudioError: features or mask of a wrong shape, or F too short for the clips.
        """
        lengths = self.mel_lengths(input_features, feature_attention_mask)
        tokens = [num_audio_tokens(n) for n in lengths]
        features = input_features.to(self.audio_tower.conv1.weight)
        if self.encoder_mask and not listened_to(self.audio_tower, self.multi_modal_projector):
            return self.multi_modal_projector(self.audio_tower.encode(features, lengths)), tokens
        windows = self.multi_modal_projector(self.encode_windows(features, lengths).last_hidden_state)
        return torch.cat([clip[:n] for clip, n in zip(windows, tokens, strict=True)]), tokens

    def encode_windows(self, features: torch.Tensor, lengths: list[int], **options: Any) -> Any:
        """Whole windows, as the reference computes them and as a hook expects to see them: the encoder's result."""
        mask = None
        if self.encoder_mask:
            frames = torch.tensor([num_encoder_frames(n) for n in lengths], device=features.device)
            positions = torch.arange(self.config.audio_config.max_source_positions, device=features.device)
            mask = positions < frames.clamp(min=1)[:, None]  # attention to no frame at all would be NaN
            features = pad_to_window(features, lengths, self.audio_tower.window)
        return self.audio_tower(features, mask, **options, return_dict=True)

    def mel_lengths(self, features: torch.Tensor, mask: torch.Tensor | None) -> list[int]:
        if features.dim() != 3 or features.shape[1] != self.config.audio_config.num_mel_bins:
            raise AudioError(
                f"input_features has shape {list(features.shape)}; expected "
                f"[clips, {self.config.audio_config.num_mel_bins}, mel frames], as the processor makes them."
            )
        if mask is None:
            raise PromptError(
                "input_features came without feature_attention_mask, so padding could not be told from sound; "
                "pass both, as the processor returns them."
            )
        if mask.shape[0] != features.shape[0]:
            raise AudioError(f"feature_attention_mask has {mask.shape[0]} rows for {features.shape[0]} clips.")
        return [int(n) for n in (mask != 0).sum(-1).tolist()]  # counted as integers: bf16 cannot represent 2999

    def embed_prompt(
        self,
        input_ids: torch.Tensor,
        input_features: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        feature_attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> EmbeddedPrompt:
        """Embed ids and clips; legacy prompts with one placeholder per clip are expanded.

        Args:
            input_ids: int64 [B, T].
            input_features: [A, mel bins, F]; None for text only.
            attention_mask: 0/1 [B, T]; None: every position is valid.
            feature_attention_mask: 0/1 [A, F].
            labels: int64 [B, T].

        Raises:
            PromptError: clips and placeholders do not match, or a mask or labels of another shape.
            AudioError: features of a wrong shape.
        """
        input_ids = input_ids.to(self.device)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask.to(input_ids)
        if mask.shape != input_ids.shape:
            raise PromptError(f"attention_mask is {list(mask.shape)}; expected {list(input_ids.shape)}, as input_ids.")
        if labels is not None:
            labels = labels.to(self.device)
            if labels.shape != input_ids.shape:
                raise PromptError(f"labels is {list(labels.shape)}; expected {list(input_ids.shape)}, as input_ids.")
        audio_id = self.config.audio_token_index
        if input_features is None:
            if bool((input_ids == audio_id).any()):
                raise PromptError(
                    f"The prompt has {int((input_ids == audio_id).sum())} audio placeholders but no input_features: "
                    "the model would not hear anything. Pass the processor's whole output to the model."
                )
            return EmbeddedPrompt(input_ids, mask, self.get_input_embeddings()(input_ids), labels)
        audio, tokens = self.encode_audio(input_features, feature_attention_mask)
        pad = self.config.text_config.pad_token_id
        slots = find_slots(
            input_ids,
            mask,
            labels,
            tokens,
            audio_id=audio_id,
            pad_id=0 if pad is None else pad,  # any id works, because padded positions are masked
            ignore_index=self.config.ignore_index,
        )
        is_audio = slots.input_ids == audio_id
        embeds = self.get_input_embeddings()(slots.input_ids)
        embeds = embeds.masked_scatter(is_audio[..., None], audio.to(embeds))
        return EmbeddedPrompt(slots.input_ids, slots.attention_mask, embeds, slots.labels)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        feature_attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: KVCache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """One forward pass; the arguments are those of `Qwen2AudioForConditionalGeneration.forward`."""
        inputs = Inputs(
            input_ids, input_features, attention_mask, feature_attention_mask, position_ids, inputs_embeds, labels
        )
        out, mask, labels = self._run(
            inputs,
            past_key_values,
            use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        assert out.last_hidden_state is not None
        result = Qwen2AudioModelOutput(
            out.last_hidden_state, out.past_key_values, out.hidden_states, out.attentions, mask, labels
        )
        return as_asked(result, return_dict, self.config)

    def _run(
        self,
        inputs: Inputs,
        cache: KVCache | None,
        use_cache: bool | None,
        *,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
        logits_to_keep: int | torch.Tensor = 0,
    ) -> tuple[LanguageModelOutput, torch.Tensor | None, torch.Tensor | None]:
        """The language model's output, and the attention mask and the labels of the expanded prompt."""
        if (inputs.input_ids is None) == (inputs.inputs_embeds is None):
            raise PromptError("Pass exactly one of input_ids and inputs_embeds.")
        for name, value in vars(inputs).items():
            if value is not None:
                check_tensor(name, value)
        check_cache(cache)
        past = cache.length if cache is not None else 0
        embeds, positions = (
            None if t is None else t.to(self.device) for t in (inputs.inputs_embeds, inputs.position_ids)
        )
        mask, labels = inputs.attention_mask, inputs.labels
        if inputs.input_ids is not None and past and inputs.input_ids.shape[1] == 1 and inputs.input_features is None:
            # A decode step: the audio is in the cache; an <|AUDIO|> here is a token that the model generated.
            embeds = self.get_input_embeddings()(inputs.input_ids.to(self.device))
        elif inputs.input_ids is not None:
            prompt = self.embed_prompt(
                inputs.input_ids,
                inputs.input_features,
                None if mask is None else mask[:, past:],
                inputs.feature_attention_mask,
                labels,
            )
            embeds, labels = prompt.inputs_embeds, prompt.labels
            if prompt.input_ids.shape != inputs.input_ids.shape:  # expanded: the caller's position_ids no longer match
                new_mask = prompt.attention_mask
                past_mask = new_mask.new_ones(len(new_mask), past) if mask is None else mask[:, :past].to(new_mask)
                mask, positions = torch.cat((past_mask, new_mask), 1), None
        assert embeds is not None
        # Drop a mask of only ones, unless its length is wrong: then the language model refuses it.
        padded = mask is not None and (mask.shape[1] != past + embeds.shape[1] or not bool(mask.all()))
        keys = mask.to(self.device) if mask is not None and padded else None
        if positions is None and keys is not None:
            positions = position_ids_of(keys)[:, past:]
        if cache is None and self._wants_cache(use_cache):
            cache = self.new_cache(embeds.shape[0], embeds.shape[1])
        configs = self.config, self.config.text_config
        out = self.language_model(
            inputs_embeds=embeds,
            attention_mask=keys,
            position_ids=positions,
            past_key_values=cache,
            logits_to_keep=logits_to_keep,
            output_attentions=chosen(output_attentions, *configs, name="output_attentions"),
            output_hidden_states=chosen(output_hidden_states, *configs, name="output_hidden_states"),
        )
        return out, mask, labels

    def _wants_cache(self, use_cache: bool | None) -> bool:
        """As asked, else as the config says, but not in training: it would hold keys and values for nothing."""
        if torch.is_grad_enabled() and any(layer.gradient_checkpointing for layer in self.language_model.model.layers):
            if use_cache:  # recomputing a layer would append its keys and values again
                warnings.warn("use_cache=True has no effect with gradient checkpointing; leave it out.", stacklevel=4)
            return False
        return self.config.text_config.use_cache and not self.training if use_cache is None else use_cache


class Qwen2AudioForConditionalGeneration(Qwen2AudioModel):
    """The complete model; it returns logits, and the loss when labels are given."""

    has_head = True

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        feature_attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: KVCache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
    ) -> Any:
        """One forward pass over prompts and clips.

        Args:
            input_ids: int64 [B, T], with N_a placeholders per clip, or one per clip (legacy).
            input_features: [A, mel bins, F], clips in the order of their placeholders. F is the full window (3000),
                or at least what the longest clip needs.
            attention_mask: 0/1 [B, T], or [B, cached + T] with a cache.
            feature_attention_mask: 0/1 [A, F]; 1 marks a valid mel frame.
            position_ids: int64 [B, T]. None: counts the valid positions.
            past_key_values: a KVCache, which is written in place; `input_ids` are then only the new positions.
            inputs_embeds: [B, T, H] in place of input_ids, with the audio embeddings merged by the caller.
            labels: int64 [B, T]; positions with -100 and padded positions are not trained on.
            use_cache: return a cache. None: as the config says, but never in training. With gradient checkpointing no
                cache is made.
            output_attentions: return the attention weights of every layer; needs attn_implementation "eager". None,
                here and in the next two: as the config or its text_config says.
            output_hidden_states: return the hidden states before the first layer and after each layer.
            return_dict: False returns a tuple of the values that are not None.
            logits_to_keep: the positions that get logits. 0: all; n: the last n; bool [B, T]: the N true ones, as
                logits [N, V]. Labels need all.

        Raises:
            PromptError: clips and placeholders do not match.
            AudioError: features of a wrong shape.
            ConfigError: an option that cannot work.
        """
        if labels is not None and (isinstance(logits_to_keep, torch.Tensor) or logits_to_keep):
            raise ConfigError("labels need the logits of all positions; leave logits_to_keep at 0.")
        inputs = Inputs(
            input_ids, input_features, attention_mask, feature_attention_mask, position_ids, inputs_embeds, labels
        )
        out, mask, labels = self._run(
            inputs,
            past_key_values,
            use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            logits_to_keep=logits_to_keep,
        )
        loss = None
        if labels is not None:
            assert out.logits is not None
            loss = causal_lm_loss(out.logits, labels, mask, self.config.ignore_index)
        result = Qwen2AudioCausalLMOutput(
            loss, out.logits, out.past_key_values, out.hidden_states, out.attentions, mask
        )
        return as_asked(result, return_dict, self.config)


def causal_lm_loss(
    logits: torch.Tensor, labels: torch.Tensor, attention_mask: torch.Tensor | None, ignore_index: int = -100
) -> torch.Tensor:
    """Mean cross-entropy of the logits [B, T, V] at position t against the label [B, T] at position t + 1.

    A pair counts if both positions are valid in `attention_mask` and the label is not `ignore_index`. The loss
    therefore does not depend on the padding side. (The reference also counts the first token of a left-padded row,
    which it predicts from a padded position.) Computed in the logits' dtype; returns a scalar.
    """
    targets = labels[:, 1:].to(logits.device)
    if attention_mask is not None:
        valid = attention_mask.to(logits.device) != 0
        targets = targets.masked_fill(~(valid[:, 1:] & valid[:, :-1]), ignore_index)
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten(), ignore_index=ignore_index)
