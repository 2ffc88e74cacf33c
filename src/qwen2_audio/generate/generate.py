"""The entry: from prompt and clips to token ids.

B prompts, A clips, T prompt columns as given, R rows decoded (B times beams or samples), V vocabulary.
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
from .decode import Decoder, Reading, pad_left
from .lengths import PromptSize, measure, plan_lengths, warn_of_lengths
from .options import Options, resolve
from .output import GenerateOutput, Trace
from .search import Search
from .stopping import Criterion
from .streamers import Streamer, ending


@dataclass(frozen=True)
class Inputs:
    """What the model hears and reads."""

    input_ids: Tensor  # int64 [B, T]
    attention_mask: Tensor  # int64 [B, T]
    input_features: Tensor | None  # [A, mel bins, F]
    feature_attention_mask: Tensor | None  # [A, F]


@dataclass(frozen=True)
class Extras:
    """What a call brings beside options."""

    logits_processor: Sequence[LogitsProcessor] = ()
    stopping_criteria: Sequence[Criterion] = ()
    prefix_allowed_tokens_fn: Callable[[int, Tensor], Sequence[int]] | None = None
    streamer: Streamer | None = None
    tokenizer: Any = None
    generator: torch.Generator | None = None
    reading: Reading | None = None


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
    reading: Reading | None = None,
    **kwargs: Any,
) -> Tensor | GenerateOutput:
    """Answer prompts.

    Clips are encoded once and prompts run once, however many beams or samples each has. Rows may be padded on either
    side, and a row's answer does not depend on the others' (drawn answers share one random stream, though).

    Args:
        input_ids: int64 [B, T], from the processor; prompts with one placeholder a clip work too.
        input_features: [A, mel bins, F], all clips in the order of their placeholders.
        attention_mask: 0/1 [B, T]. None: every column counts, unless pad_token_id occurs and is no end-of-text id.
        feature_attention_mask: 0/1 [A, F].
        generation_config: a GenerationConfig or dict; what it leaves unset comes from the model's own.
        logits_processor: callables `(ids [R, L], scores [R, V]) -> scores`, run after the built-in ones; one of the
            class of a built-in one replaces it. They see expanded prompts, padded on the left.
        stopping_criteria: callables `(ids [R, L], scores) -> bool [R]`, asked after each token.
        prefix_allowed_tokens_fn: `(prompt number, ids [L]) -> ids` that alone may come next.
        streamer: gets the prompt's ids, then each token; see `streamers`.
        tokenizer: anything with `decode(ids)`; needed for stop_strings.
        seed: makes draws repeatable on one device. None: torch's global random state.
        generator: a torch.Generator in place of a seed.
        reading: one prompt whose beginning the model has read already, clips included; no input_features then.
        kwargs: any field of GenerationConfig; these come before generation_config.

    Returns:
        int64 [B * num_return_sequences, T + new]: the prompts as given, then the answers with the end-of-text token,
        filled up with the pad id. With return_dict_in_generate=True a GenerateOutput.

    Raises:
        ConfigError: an unknown option or a value that cannot work.
        PromptError: input that does not fit together.
        ContextLengthError: no room for the answer.
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
            reading,
        )
        inputs = _inputs(model, options, input_ids, attention_mask, input_features, feature_attention_mask)
        _refuse_combinations(model, options, extras, len(inputs.input_ids) * options.rows_per_prompt)
        prepared = _prepare(model, inputs, options, extras, started)
        prepared.stream(inputs.input_ids.repeat_interleave(options.rows_per_prompt, 0))
        out = _way(options)(prepared)
    return out if options.config.return_dict_in_generate else out.sequences


def _way(options: Options) -> Callable[[Search], GenerateOutput]:
    if options.num_beams > 1:
        return beam.run
    return search.run if options.config.prompt_lookup_num_tokens is None else lookup.run


def _prepare(model: Any, inputs: Inputs, options: Options, extras: Extras, started: float) -> Search:
    """Check the lengths, encode the clips, and put together what the search needs."""
    text, audio = model.config.text_config, model.config.audio_token_index
    context = text.max_position_embeddings
    # First what needs no computation: a prompt of the old kind can only get longer.
    size = measure(inputs.input_ids, inputs.attention_mask, audio)
    plan_lengths(options, size, context)
    if extras.reading is None:
        prompt = model.embed_prompt(
            inputs.input_ids, inputs.input_features, inputs.attention_mask, inputs.feature_attention_mask
        )
        rows, cache = pad_left(prompt), None
    else:
        rows, cache = extras.reading.rows(inputs.input_ids, inputs.attention_mask), extras.reading.cache
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
        Decoder(model, rows, lengths.max_new, cached=options.config.use_cache is not False, trace=trace, cache=cache),
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
    """Check ids and mask, and bring them to the model's device."""
    if input_ids is None:
        raise PromptError("generate() got no input_ids; pass the processor's whole output: generate(**inputs).")
    given = {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "input_features": input_features,
        "feature_attention_mask": feature_attention_mask,
    }
    for name, value in given.items():
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
    """Refuse ids that would be fed or forced but do not exist. (An end of text that does not merely never comes.)"""
    fed = ["pad_token_id"] if rows > 1 else []
    for name in (*fed, "forced_bos_token_id", "forced_eos_token_id"):
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
    if (
        options.config.max_time is not None
        and isinstance(model, nn.Module)
        and tensor_parallel_group(model) is not None
    ):
        raise ConfigError(
            "max_time is set for a model that several processes share, each of which would stop at another token; "
            "leave it out, and set max_new_tokens."
        )
    if extras.streamer is not None and options.num_beams > 1:
        raise ConfigError(
            "A streamer cannot follow beam search, whose tokens may still change; leave one of the two out."
        )
    if extras.reading is not None and options.config.use_cache is False:
        raise ConfigError("reading= is a cache and use_cache is False; leave one of the two out.")
    if options.config.stop_strings is not None and extras.tokenizer is None:
        raise ConfigError(
            "stop_strings needs the tokenizer to read what was generated; pass tokenizer=processor.tokenizer."
        )
    rows_end_apart = options.config.stop_strings is not None or bool(extras.stopping_criteria)
    if rows > 1 and rows_end_apart and options.config.pad_id is None:
        raise ConfigError("Rows may end at different lengths and no pad_token_id is set to fill them up; pass one.")
