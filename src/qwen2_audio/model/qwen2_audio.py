"""Qwen2-Audio: encoder, projector, merge, language model, loss.

B rows, T prompt positions, A clips in the whole batch, F mel frames, H width, V vocabulary.
Attribute names are those of the checkpoint: `audio_tower`, `multi_modal_projector`, `language_model`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..audio.mel import num_audio_tokens
from ..checkpoint.config import Qwen2AudioConfig
from ..errors import AudioError, ConfigError, PromptError
from .attention import check_implementation
from .cache import KVCache
from .encoder import Qwen2AudioEncoder, Qwen2AudioMultiModalProjector
from .initialize import initialize
from .language_model import Qwen2LanguageModel
from .merge import Prompt, check_tensor, find_slots, position_ids_of
from .outputs import LanguageModelOutput, Qwen2AudioCausalLMOutput, Qwen2AudioModelOutput


@dataclass
class Inputs:
    """What a forward pass was given; shapes as in `Qwen2AudioForConditionalGeneration.forward`."""

    input_ids: torch.Tensor | None
    input_features: torch.Tensor | None
    attention_mask: torch.Tensor | None
    feature_attention_mask: torch.Tensor | None
    position_ids: torch.Tensor | None
    inputs_embeds: torch.Tensor | None
    labels: torch.Tensor | None


class Qwen2AudioModel(nn.Module):
    """The model without its head: hidden states out."""

    has_head = False

    def __init__(self, config: Qwen2AudioConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder_mask = True  # False: attend to padded frames, as some runtimes do; for comparison only
        self.audio_tower = Qwen2AudioEncoder(config.audio_config)
        self.multi_modal_projector = Qwen2AudioMultiModalProjector(config)
        self.language_model = Qwen2LanguageModel(config.text_config, head=self.has_head, tied=config.tied)
        self.set_attn_implementation(config._attn_implementation)
        initialize(self, config)

    @property
    def device(self) -> torch.device:
        return self.language_model.model.norm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.language_model.model.norm.weight.dtype

    def get_input_embeddings(self) -> nn.Embedding:
        return self.language_model.model.embed_tokens

    def set_attn_implementation(self, name: str) -> None:
        """Choose "eager", "sdpa" or "flash_attention_2" for all parts. Raises ConfigError when it cannot run here."""
        check_implementation(name)
        for config in (self.config, self.config.audio_config, self.config.text_config):
            config._attn_implementation = name

    def new_cache(self, batch: int, capacity: int = 0) -> KVCache:
        """An empty KV cache for `batch` rows, with room for `capacity` positions before it must grow."""
        return self.language_model.new_cache(batch, capacity)

    def encode_audio(
        self, input_features: torch.Tensor, feature_attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, list[int]]:
        """Log-mel to what the language model hears.

        Args:
            input_features: [A, mel bins, F]: whole windows, or no longer than the clips need.
            feature_attention_mask: 0/1 [A, >= valid frames]; ones are valid mel frames. None: all F are.

        Returns:
            Projected embeddings [sum of N_a, H], clip after clip, and each clip's N_a.

        Raises:
            AudioError: the mask does not describe the features, or F fits neither a window nor the clips.
        """
        lengths = self._mel_lengths(input_features, feature_attention_mask)
        tokens = [num_audio_tokens(n) for n in lengths]
        features = input_features.to(self.audio_tower.conv1.weight)
        if self.encoder_mask:
            return self.multi_modal_projector(self.audio_tower.encode(features, lengths)), tokens
        whole = self.audio_tower(features).last_hidden_state  # [A, window // 4, d], padding heard as sound
        kept = torch.cat([clip[:n] for clip, n in zip(whole, tokens, strict=True)])
        return self.multi_modal_projector(kept), tokens

    def _mel_lengths(self, features: torch.Tensor, mask: torch.Tensor | None) -> list[int]:
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
        return [int(n) for n in (mask != 0).sum(-1).tolist()]  # counted as integers: 2999 is no number of bf16

    def embed_prompt(
        self,
        input_ids: torch.Tensor,
        input_features: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        feature_attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> Prompt:
        """Ids and clips to embeddings; legacy one-placeholder prompts come out expanded.

        Args:
            input_ids: int64 [B, T].
            input_features: [A, mel bins, F]; None for text only.
            attention_mask: 0/1 [B, T]; None: every position is valid.
            feature_attention_mask: 0/1 [A, F].
            labels: int64 [B, T].

        Raises:
            PromptError: clips and placeholders do not fit together.
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
            embeds = self.get_input_embeddings()(input_ids)
            return Prompt(input_ids, mask, embeds, [0] * len(input_ids), [0] * len(input_ids), labels)
        audio, tokens = self.encode_audio(input_features, feature_attention_mask)
        pad = self.config.text_config.pad_token_id
        slots = find_slots(
            input_ids,
            mask,
            labels,
            tokens,
            audio_id=audio_id,
            pad_id=0 if pad is None else pad,  # any id will do: masked, and never embedded into a valid position
            ignore_index=self.config.ignore_index,
        )
        is_audio = slots.input_ids == audio_id
        embeds = self.get_input_embeddings()(slots.input_ids)
        embeds = embeds.masked_scatter(is_audio[..., None], audio.to(embeds))
        clips = [slots.clip_rows.count(row) for row in range(len(input_ids))]
        return Prompt(slots.input_ids, slots.attention_mask, embeds, is_audio.sum(1).tolist(), clips, slots.labels)

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
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        return_dict: bool = True,
    ) -> Any:
        """One pass over prompt and clips; see `Qwen2AudioForConditionalGeneration.forward` for the arguments."""
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
        return result if return_dict else result.to_tuple()

    def _run(
        self, given: Inputs, cache: KVCache | None, use_cache: bool | None, **options: Any
    ) -> tuple[LanguageModelOutput, torch.Tensor | None, torch.Tensor | None]:
        """The language model's output, the attention mask that held, and the labels, both after expansion."""
        if (given.input_ids is None) == (given.inputs_embeds is None):
            raise PromptError("Pass exactly one of input_ids and inputs_embeds.")
        for name, value in vars(given).items():
            if value is not None:
                check_tensor(name, value)
        past = cache.length if cache is not None else 0
        embeds, positions = (
            None if t is None else t.to(self.device) for t in (given.inputs_embeds, given.position_ids)
        )
        mask, labels = given.attention_mask, given.labels
        if given.input_ids is not None and past and given.input_ids.shape[1] == 1 and given.input_features is None:
            # A decode step: the audio is in the cache already, and a placeholder is what the model has said.
            embeds = self.get_input_embeddings()(given.input_ids.to(self.device))
        elif given.input_ids is not None:
            prompt = self.embed_prompt(
                given.input_ids,
                given.input_features,
                None if mask is None else mask[:, past:],
                given.feature_attention_mask,
                labels,
            )
            embeds, labels = prompt.inputs_embeds, prompt.labels
            if prompt.input_ids.shape != given.input_ids.shape:  # legacy: whatever positions were given no longer fit
                here = prompt.attention_mask
                before = here.new_ones(len(here), past) if mask is None else mask[:, :past].to(here)
                mask, positions = torch.cat((before, here), 1), None
        assert embeds is not None
        # A mask of ones says nothing and is dropped, unless it is too short: the language model then refuses it.
        padded = mask is not None and (mask.shape[1] != past + embeds.shape[1] or not bool(mask.all()))
        keys = mask.to(self.device) if mask is not None and padded else None
        if positions is None and keys is not None:
            positions = position_ids_of(keys)[:, past:]
        if use_cache is None:  # in training nobody reads it, and it would hold every layer's keys and values
            use_cache = self.config.text_config.use_cache and not self.training
        if cache is None and use_cache:
            cache = self.new_cache(embeds.shape[0], embeds.shape[1])
        out = self.language_model(
            inputs_embeds=embeds, attention_mask=keys, position_ids=positions, past_key_values=cache, **options
        )
        return out, mask, labels


class Qwen2AudioForConditionalGeneration(Qwen2AudioModel):
    """The whole model: logits out, and the loss when labels are given."""

    has_head = True

    def get_output_embeddings(self) -> nn.Linear:
        assert self.language_model.lm_head is not None
        return self.language_model.lm_head

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
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        return_dict: bool = True,
        logits_to_keep: int | torch.Tensor = 0,
    ) -> Any:
        """One pass over prompt and clips.

        Args:
            input_ids: int64 [B, T]; placeholders expanded, or one a clip (legacy).
            input_features: [A, mel bins, F], clips in the order of their placeholders. F is the whole window
                (3000), or anything from what the longest clip needs on.
            attention_mask: 0/1 [B, T], or [B, cached + T] with a cache.
            feature_attention_mask: 0/1 [A, F]: which mel frames are sound.
            position_ids: int64 [B, T]. None counts valid positions.
            past_key_values: a KVCache, written in place; `input_ids` are then the new positions only.
            inputs_embeds: [B, T, H] in place of input_ids; audio is then yours to merge.
            labels: int64 [B, T]; -100 is not trained on, nor is any padded position.
            use_cache: return a cache. None: as the config says, but not in training.
            output_attentions: return weights of every layer; needs attn_implementation "eager".
            output_hidden_states: return the hidden states around every layer.
            return_dict: False returns a plain tuple of what is not None.
            logits_to_keep: 0 all positions, n the last n, bool [B, T] the N that are true, as logits [N, V].
                Loss needs all.

        Raises:
            PromptError: clips and placeholders do not fit together.
            AudioError: features of the wrong shape.
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
        return result if return_dict else result.to_tuple()


def causal_lm_loss(
    logits: torch.Tensor, labels: torch.Tensor, attention_mask: torch.Tensor | None, ignore_index: int = -100
) -> torch.Tensor:
    """Mean cross-entropy of position t's logits [B, T, V] against label t + 1 of [B, T].

    A pair counts when both positions are valid in `attention_mask` and the label is not `ignore_index`, so that the
    loss does not depend on the padding side. (The reference also counts the first token of a left-padded row, which
    it predicts from a padded position.) Computed in the logits' dtype.
    """
    targets = labels[:, 1:].to(logits.device)
    if attention_mask is not None:
        valid = attention_mask.to(logits.device) != 0
        targets = targets.masked_fill(~(valid[:, 1:] & valid[:, :-1]), ignore_index)
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten(), ignore_index=ignore_index)
