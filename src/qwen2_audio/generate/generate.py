"""`generate`, the entry point: from prompts and clips to token ids.

B prompts, A clips, T columns of the prompts, R decoded rows (B times beams or samples), V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..distributed.tensor_parallel import tensor_parallel_group
from ..errors import ConfigError, PromptError
from ..model.merge import check_tensor
from . import beam, lookup, processors, search, stopping
from .config import as_list
from .constraints import LogitsProcessor
from .decode import Decoder, pad_left
from .lengths import PromptSize, measure, plan_lengths, warn_of_lengths
from .options import Options, resolve
from .output import GenerateOutput, Trace
from .search import Search
from .stopping import Criterion
from .streamers import Streamer, ending


@dataclass(frozen=True)
class Inputs:
    """The model's inputs, checked."""

    input_ids: Tensor  # int64 [B, T]
    attention_mask: Tensor  # int64 [B, T]
    input_features: Tensor | None  # [A, mel bins, F]
    feature_attention_mask: Tensor | None  # [A, F]


@dataclass(frozen=True)
class Extras:
    """The arguments of a call that are not options."""

    logits_processor: Sequence[LogitsProcessor] = ()
    stopping_criteria: Sequence[Criterion] = ()
    prefix_allowed_tokens_fn: Callable[[int, Tensor], Sequence[int]] | None = None
    streamer: Streamer | None = None
    tokenizer: Any = None
    generator: torch.Generator | None = None


def generate(
    model: Any,
    input_ids: Tensor | None = None,
    input_features: Tensor | None = None,
    attention_mask: Tensor | None = None,
    feature_attention_mask: Tensor | None = None,
    *,
    generation_config: Any = None,
    logits_processor: Sequence[LogitsProcessor] | None = None,
    stopping_criteria: Sequence[Criterion] | None = None,
    prefix_allowed_tokens_fn: Callable[[int, Tensor], Sequence[int]] | None = None,
    streamer: Streamer | None = None,
    tokenizer: Any = None,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    **kwargs: Any,
) -> Tensor | GenerateOutput:
    """Generate answers to prompts.

    Clips are encoded once and prompts are run once, however many beams or samples each prompt has. Rows may be padded
    on either side. A row's greedy answer does not depend on the other rows; drawn answers share one random stream.

    Args:
        input_ids: int64 [B, T], from the processor; prompts with one placeholder per clip work too.
        input_features: [A, mel bins, F], clips in the order of their placeholders.
        attention_mask: 0/1 [B, T]. None: masks pad_token_id, unless that is also an end-of-text id.
        feature_attention_mask: 0/1 [A, F].
        generation_config: a GenerationConfig or dict; fields that are not set come from the model's own.
        logits_processor: callables `(ids [R, L], scores [R, V]) -> scores`, which run after the built-in ones. One of
            a built-in class replaces the built-in one. They get expanded prompts, padded on the left.
        stopping_criteria: callables `(ids [R, L], scores) -> bool [R]`, called after each token.
        prefix_allowed_tokens_fn: `(prompt number, ids [L]) -> ids` that are allowed as the next token.
        streamer: gets the prompt's ids, then each token; see `streamers`.
        tokenizer: an object with `decode(ids)`; needed for stop_strings.
        seed: makes draws repeatable on one device. None: torch's global random state.
        generator: a torch.Generator in place of a seed.
        kwargs: any field of GenerationConfig; these take precedence over generation_config.

    Returns:
        int64 [B * num_return_sequences, T + new]: the prompts as given, then the answers with their end-of-text token,
        padded with the pad id. With return_dict_in_generate=True, a GenerateOutput.

    Raises:
        ConfigError: an unknown option or a value that cannot work.
        PromptError: inputs that do not match.
        ContextLengthError: prompt and answer exceed the context.
    """
    started = time.monotonic()
    with ending(streamer), torch.no_grad():
        options = resolve(getattr(model, "generation_config", None), generation_config, kwargs)
        extras = Extras(
            logits_processor or (),
            stopping_criteria or (),
            prefix_allowed_tokens_fn,
            streamer,
            tokenizer,
            _generator(model, seed, generator),
        )
        inputs = _inputs(model, options, input_ids, attention_mask, input_features, feature_attention_mask)
        _refuse_combinations(model, options, extras, len(inputs.input_ids) * options.rows_per_prompt)
        prepared = _prepare(model, inputs, options, extras, started)
        prepared.stream(inputs.input_ids.repeat_interleave(options.rows_per_prompt, 0))
        out = _search_function(options)(prepared)
    return out if options.config.return_dict_in_generate else out.sequences


def _search_function(options: Options) -> Callable[[Search], GenerateOutput]:
    if options.num_beams > 1:
        return beam.beam_search
    return search.sample if options.config.prompt_lookup_num_tokens is None else lookup.sample_with_lookup


def _prepare(model: Any, inputs: Inputs, options: Options, extras: Extras, started: float) -> Search:
    """Check the lengths, encode the clips, and make the Search."""
    text, audio = model.config.text_config, model.config.audio_token_index
    context = text.max_position_embeddings
    # Before encoding, refuse a prompt that is too long as given; expanding a legacy prompt only makes it longer.
    size = measure(inputs.input_ids, inputs.attention_mask, audio)
    plan_lengths(options, size, context)
    rows = pad_left(
        model.embed_prompt(
            inputs.input_ids, inputs.input_features, inputs.attention_mask, inputs.feature_attention_mask
        )
    )
    trace = Trace(options.config)
    lengths = plan_lengths(options, PromptSize(rows.input_ids.shape[1], size.counted), context)
    warn_of_lengths(options, lengths)
    criteria = stopping.build(options.config, lengths.max_length, started, extras.tokenizer, extras.stopping_criteria)
    times, padding = options.rows_per_prompt, rows.padding
    ids = rows.input_ids.repeat_interleave(times, 0)
    padding = None if padding is None else padding.repeat_interleave(times)
    return Search(
        options,
        lengths,
        Decoder(model, rows, lengths.max_new, cached=options.config.use_cache is not False, trace=trace),
        inputs.input_ids,
        ids,
        processors.build(
            options,
            processors.PromptRows(ids, padding, lengths),
            extras.logits_processor,
            extras.prefix_allowed_tokens_fn,
        ),
        criteria,
        trace,
        extras.streamer,
        extras.generator,
    )


def _inputs(
    model: Any,
    options: Options,
    input_ids: Tensor | None,
    attention_mask: Tensor | None,
    input_features: Tensor | None,
    feature_attention_mask: Tensor | None,
) -> Inputs:
    """Check the inputs, and move ids and mask to the model's device."""
    if input_ids is None:
        raise PromptError("generate() got no input_ids; pass the processor's whole output: generate(**inputs).")
    tensors = {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "input_features": input_features,
        "feature_attention_mask": feature_attention_mask,
    }
    for name, value in tensors.items():
        if value is not None:
            check_tensor(name, value)
    shape = list(input_ids.shape)
    if len(shape) != 2 or 0 in shape or input_ids.is_floating_point():
        raise PromptError(f"input_ids has shape {shape}; expected whole numbers [prompts, tokens], at least one each.")
    ids = input_ids.to(model.device, torch.long)
    low, high, vocabulary = int(ids.min()), int(ids.max()), model.config.text_config.vocab_size
    if low < 0 or high >= vocabulary:
        raise PromptError(f"input_ids run from {low} to {high}; expected ids from 0 to {vocabulary - 1}.")
    _check_vocabulary(options, vocabulary, rows=len(ids) * options.rows_per_prompt)
    mask = _mask_from_ids(ids, options) if attention_mask is None else attention_mask.to(ids)
    if mask.shape != ids.shape:
        raise PromptError(f"attention_mask has shape {list(mask.shape)}; expected {shape}, that of input_ids.")
    empty = (mask.sum(1) == 0).nonzero().flatten().tolist()
    if empty:
        raise PromptError(f"Prompt {empty[0] + 1} of {shape[0]} is all padding; give each at least one token.")
    return Inputs(ids, mask, input_features, feature_attention_mask)


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


def _generator(model: Any, seed: int | None, generator: torch.Generator | None) -> torch.Generator | None:
    if seed is not None and generator is not None:
        raise ConfigError("seed and generator are both given; pass one of them.")
    if generator is not None and generator.device.type != model.device.type:
        raise ConfigError(
            f"The generator lies on {generator.device} and the model on {model.device}; "
            f"make it with torch.Generator({str(model.device)!r}), or pass seed=."
        )
    return generator if seed is None else torch.Generator(model.device).manual_seed(seed)


def _refuse_combinations(model: Any, options: Options, extras: Extras, rows: int) -> None:
    tensor_parallel = isinstance(model, nn.Module) and tensor_parallel_group(model) is not None
    if options.config.max_time is not None and tensor_parallel:
        raise ConfigError(
            "max_time is set for a model that several processes share, each of which would stop at another token; "
            "leave it out, and set max_new_tokens."
        )
    if extras.streamer is not None and options.num_beams > 1:
        raise ConfigError(
            "A streamer cannot follow beam search, whose tokens may still change; leave one of the two out."
        )
    if options.config.stop_strings is not None and extras.tokenizer is None:
        raise ConfigError(
            "stop_strings needs the tokenizer to read what was generated; pass tokenizer=processor.tokenizer."
        )
    may_end_early = options.config.stop_strings is not None or bool(extras.stopping_criteria)
    if rows > 1 and may_end_early and options.config.pad_id is None:
        raise ConfigError("Rows may end at different lengths and no pad_token_id is set to fill them up; pass one.")
