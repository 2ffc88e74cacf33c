"""`generate`, and the methods that peft and users' own loops call beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..errors import ConfigError
from ..generate.transition_scores import transition_scores


class GenerationMixin(nn.Module):
    """Mixin of the complete model."""

    config: Any

    def generate(self, *args: Any, **options: Any) -> Any:
        """Generate token ids from prompts; the arguments are those of `qwen2_audio.generate.generate.generate`."""
        from ..generate.generate import generate

        self._refuse_replaced_preparation()
        return generate(self, *args, **options)

    def _refuse_replaced_preparation(self) -> None:
        """peft replaces the method: for its prompt learning, which needs that, and for LoRA, which does not."""
        method = self.prepare_inputs_for_generation
        if getattr(method, "__func__", None) is GenerationMixin.prepare_inputs_for_generation:
            return
        config = getattr(getattr(method, "__self__", None), "active_peft_config", None)
        if config is None or config.is_prompt_learning:
            raise ConfigError(
                "prepare_inputs_for_generation was replaced, by peft's prompt or prefix tuning or by other code, and "
                "generate() does not call it: the answer would ignore what it adds. Pass it as inputs_embeds."
            )

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        next_sequence_length: int | None = None,
        past_key_values: Any = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        is_first_iteration: bool | None = False,
        **inputs: Any,
    ) -> dict[str, Any]:
        """The inputs of `forward` for the next step of a loop of one's own. `generate` here does not call it.

        Args:
            input_ids: int64 [B, L], the prompt and what came after it.
            next_sequence_length: how many positions are new. None: those that `past_key_values` lacks.
            past_key_values: a KVCache, or None.
            attention_mask: 0/1 [B, L].
            inputs_embeds: [B, T, H], used in the first step in place of `input_ids`.
            is_first_iteration: it is the first step.
            inputs: passed on; clips in the first step only, after which they are in the cache.
        """
        past = past_key_values.length if past_key_values is not None else 0
        first = bool(is_first_iteration) or past == 0
        new = next_sequence_length if next_sequence_length is not None else input_ids.shape[1] - past
        out: dict[str, Any] = {"input_ids": input_ids[:, -new:] if new > 0 else input_ids}
        if inputs_embeds is not None and first:
            embeds = inputs_embeds if next_sequence_length is None else inputs_embeds[:, -next_sequence_length:]
            out = {"input_ids": None, "inputs_embeds": embeds}
        out |= {"past_key_values": past_key_values, "attention_mask": attention_mask}
        out |= {name: value for name, value in inputs.items() if name != "labels"}
        if out.get("position_ids") is not None and new > 0:
            out["position_ids"] = out["position_ids"][..., -new:]
        if not first:
            out |= {name: None for name in ("input_features", "feature_attention_mask") if name in out}
        return {name: value for name, value in out.items() if value is not None or name == "input_ids"}

    def compute_transition_scores(
        self,
        sequences: torch.Tensor,
        scores: Sequence[torch.Tensor],
        beam_indices: torch.Tensor | None = None,
        normalize_logits: bool = False,
    ) -> torch.Tensor:
        """The score of each generated token, [N, new]; see `generate.transition_scores`."""
        return transition_scores(sequences, scores, beam_indices, normalize=normalize_logits)
