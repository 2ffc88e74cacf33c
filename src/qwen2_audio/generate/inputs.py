"""The inputs of one call: checked, and turned into the rows that the decoder begins with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError, PromptError
from ..model.cache import KVCache, check_cache
from ..model.merge import EmbeddedPrompt, check_tensor
from .config import as_list
from .decode import Rows, pad_left
from .lengths import PromptSize, measure
from .options import Options, warn


@dataclass(frozen=True)
class Inputs:
    """The model's inputs, checked."""

    input_ids: Tensor  # int64 [B, T]; [B, 0] where only embeddings were passed
    attention_mask: Tensor  # int64 [B, T]
    input_features: Tensor | None  # [A, mel bins, F]
    feature_attention_mask: Tensor | None  # [A, F]
    inputs_embeds: Tensor | None  # [B, T, H]
    position_ids: Tensor | None  # int64 [B, T]
    cache: KVCache | None  # of the first positions

    def size(self, audio_token: int) -> PromptSize:
        """What the length limits count of them."""
        if self.input_ids.shape[1]:
            return measure(self.input_ids, self.attention_mask, audio_token)
        return PromptSize(int((self.attention_mask != 0).sum(1).max()), self.attention_mask.shape[1])


def check_inputs(model: Any, options: Options, cache: KVCache | None, **tensors: Tensor | None) -> Inputs:
    """Check the inputs, and move ids, mask, positions and embeddings to the model's device.

    Raises:
        PromptError: inputs that do not match.
        ConfigError: padding or forced ids outside the vocabulary; a cache with `use_cache=False`.
    """
    for name, value in tensors.items():
        if value is not None:
            check_tensor(name, value)
    embeds = tensors["inputs_embeds"]
    ids = _check_ids(model, options, tensors["input_ids"], embeds)
    shape = list(ids.shape if embeds is None else embeds.shape[:2])
    mask = tensors["attention_mask"]
    if mask is None:
        mask = _mask_from_ids(ids, options) if ids.shape[1] else torch.ones(shape, dtype=torch.long, device=ids.device)
    mask, positions = mask.to(ids), tensors["position_ids"]
    for name, value in (("attention_mask", mask), ("position_ids", positions)):
        if value is not None and list(value.shape) != shape:
            raise PromptError(f"{name} has shape {list(value.shape)}; expected {shape}, that of input_ids.")
    empty = (mask.sum(1) == 0).nonzero().flatten().tolist()
    if empty:
        raise PromptError(f"Prompt {empty[0] + 1} of {shape[0]} is all padding; give each at least one token.")
    features = tensors["input_features"]
    if embeds is not None and features is not None:
        warn("input_features have no effect beside inputs_embeds, which must hold the clips' embeddings already.")
        features = None
    if cache is not None:
        _check_cache(options, cache, mask)
    return Inputs(
        ids,
        mask,
        features,
        tensors["feature_attention_mask"],
        None if embeds is None else embeds.to(model.device, model.dtype),
        None if positions is None else positions.to(ids),
        cache,
    )


def _check_ids(model: Any, options: Options, input_ids: Tensor | None, embeds: Tensor | None) -> Tensor:
    """The ids [B, T] on the model's device; [B, 0] where there are only embeddings."""
    if input_ids is None and embeds is None:
        raise PromptError("generate() got no input_ids; pass the processor's whole output: generate(**inputs).")
    if embeds is not None:
        width = model.config.text_config.hidden_size
        if embeds.dim() != 3 or 0 in embeds.shape or embeds.shape[2] != width:
            raise PromptError(f"inputs_embeds has shape {list(embeds.shape)}; expected [prompts, tokens, {width}].")
    if input_ids is None:
        assert embeds is not None
        return torch.zeros((embeds.shape[0], 0), dtype=torch.long, device=model.device)
    shape = list(input_ids.shape)
    if len(shape) != 2 or 0 in shape or input_ids.is_floating_point():
        raise PromptError(f"input_ids has shape {shape}; expected whole numbers [prompts, tokens], at least one each.")
    if embeds is not None and list(embeds.shape[:2]) != shape:
        raise PromptError(f"inputs_embeds is for {list(embeds.shape[:2])} tokens and input_ids for {shape}.")
    ids = input_ids.to(model.device, torch.long)
    low, high, vocabulary = int(ids.min()), int(ids.max()), model.config.text_config.vocab_size
    if low < 0 or high >= vocabulary:
        raise PromptError(f"input_ids run from {low} to {high}; expected ids from 0 to {vocabulary - 1}.")
    _check_vocabulary(options, vocabulary, rows=len(ids) * options.rows_per_prompt)
    return ids


def _check_vocabulary(options: Options, vocabulary: int, *, rows: int) -> None:
    """Refuse padding and forced ids outside the vocabulary. (An eos_token_id outside it simply never occurs.)"""
    padding = ["pad_token_id"] if rows > 1 else []
    for name in (*padding, "forced_bos_token_id", "forced_eos_token_id"):
        value = getattr(options.config, name)
        if value is not None and max(as_list(value)) >= vocabulary:
            raise ConfigError(f"{name} is {value}; expected ids from 0 to {vocabulary - 1}, the model's vocabulary.")


def _mask_from_ids(ids: Tensor, options: Options) -> Tensor:
    pad = options.config.pad_id
    if pad is None or pad in options.config.eos_ids:
        return torch.ones_like(ids)
    return (ids != pad).long()


def _check_cache(options: Options, cache: KVCache, mask: Tensor) -> None:
    check_cache(cache)
    if options.config.use_cache is False:
        raise ConfigError("past_key_values come with use_cache=False; leave one of the two out.")
    rows, columns = mask.shape
    if cache.batch != rows or not 0 < cache.length < columns:
        raise PromptError(
            f"past_key_values hold {cache.length} positions of {cache.batch} prompts, and the inputs are {rows} "
            f"prompts of {columns} tokens; pass whole sequences, of which at least one token is not in the cache."
        )
    if not bool(mask[:, -1].all()):
        raise PromptError("With past_key_values the prompts must be padded on the left; these are on the right.")


def make_rows(model: Any, inputs: Inputs, *, keep_columns: bool) -> Rows:
    """Embed the prompts, clips included, as the rows that the decoder begins with.

    With a cache only the positions after it are embedded; of clips only those whose placeholders are among them.
    """
    past = 0 if inputs.cache is None else inputs.cache.length
    ids, mask = inputs.input_ids[:, past:], inputs.attention_mask[:, past:]
    if inputs.inputs_embeds is not None:
        prompt = EmbeddedPrompt(ids, mask, inputs.inputs_embeds[:, past:])
    else:
        cached = past > 0 and not bool((ids == model.config.audio_token_index).any())
        features = None if cached else inputs.input_features
        prompt = model.embed_prompt(ids, features, mask, inputs.feature_attention_mask)
    expanded = prompt.inputs_embeds.shape[1] - mask.shape[1]
    positions = None if expanded else inputs.position_ids
    if inputs.cache is None:
        return pad_left(prompt, positions, keep_columns=keep_columns)
    ids = torch.cat((inputs.input_ids[:, :past], prompt.input_ids), 1)
    mask = torch.cat((inputs.attention_mask[:, :past], prompt.attention_mask), 1)
    return Rows(ids, prompt.inputs_embeds, None if bool(mask.all()) else mask, positions, inputs.cache)
