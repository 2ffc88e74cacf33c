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
from ..model.cache import KVCache
from . import beam, lookup, processors, search, stopping
from .constraints import LogitsProcessor
from .decode import Decoder
from .inputs import Inputs, check_inputs, make_rows
from .lengths import PromptSize, plan_lengths, warn_of_lengths
from .options import Options, resolve
from .output import GenerateOutput, Trace
from .search import Search
from .stopping import Criterion
from .streamers import Streamer, ending


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
    inputs: Tensor | None = None,
    inputs_embeds: Tensor | None = None,
    position_ids: Tensor | None = None,
    past_key_values: KVCache | None = None,
    logits_to_keep: Any = None,
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
        inputs: the reference's other name of input_ids.
        inputs_embeds: [B, T, H] in place of the embeddings of input_ids, with the clips' embeddings at their
            placeholders. Without input_ids, the new tokens alone are returned.
        position_ids: int64 [B, T]. None: counts the valid positions.
        past_key_values: the KVCache of an earlier call, which is written in place. The other inputs are for the whole
            sequence, of which only what is not in the cache is computed; clips that are in it may be left out.
        logits_to_keep: accepted and ignored, as only the last position's logits are computed.
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
        if input_ids is not None and inputs is not None:
            raise PromptError("input_ids and inputs, its other name, are both given; pass one.")
        checked = check_inputs(
            model,
            options,
            past_key_values,
            input_ids=inputs if input_ids is None else input_ids,
            attention_mask=attention_mask,
            input_features=input_features,
            feature_attention_mask=feature_attention_mask,
            inputs_embeds=inputs_embeds,
            position_ids=position_ids,
        )
        _refuse_combinations(model, options, extras, checked)
        prepared = _prepare(model, checked, options, extras, started)
        prepared.stream(checked.input_ids.repeat_interleave(options.rows_per_prompt, 0))
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
    size = inputs.size(audio)
    plan_lengths(options, size, context)
    # What is returned beside the tokens has the width of the prompts as passed.
    rows = make_rows(model, inputs, keep_columns=bool(options.config.return_dict_in_generate))
    trace = Trace(options.config)
    lengths = plan_lengths(options, PromptSize(rows.longest, size.counted), context, rows.input_ids.shape[1])
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


def _generator(model: Any, seed: int | None, generator: torch.Generator | None) -> torch.Generator | None:
    if seed is not None and generator is not None:
        raise ConfigError("seed and generator are both given; pass one of them.")
    if generator is not None and generator.device.type != model.device.type:
        raise ConfigError(
            f"The generator lies on {generator.device} and the model on {model.device}; "
            f"make it with torch.Generator({str(model.device)!r}), or pass seed=."
        )
    return generator if seed is None else torch.Generator(model.device).manual_seed(seed)


def _refuse_combinations(model: Any, options: Options, extras: Extras, inputs: Inputs) -> None:
    rows = len(inputs.input_ids) * options.rows_per_prompt
    tensor_parallel = isinstance(model, nn.Module) and tensor_parallel_group(model) is not None
    if options.config.max_time is not None and tensor_parallel:
        raise ConfigError(
            "max_time is set for a model that several processes share, each of which would stop at another token; "
            "leave it out, and set max_new_tokens."
        )
    if options.config.prompt_lookup_num_tokens is not None and not inputs.input_ids.shape[1]:
        raise ConfigError("prompt_lookup_num_tokens looks into the prompt's ids; pass input_ids beside inputs_embeds.")
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
