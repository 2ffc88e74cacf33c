"""Choose the logits processors of a call, in the reference's order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from . import constraints as c
from . import sampling as s
from .config import GenerationConfig, as_list
from .constraints import LogitsProcessor
from .lengths import Lengths
from .options import Options


@dataclass(frozen=True)
class PromptRows:
    """The prompts of the rows that the processors get scores of."""

    ids: Tensor  # int64 [B, T]
    padding: Tensor | None  # int64 [B], leading columns that are padding; None: no padding
    lengths: Lengths


def build(
    options: Options,
    prompt: PromptRows,
    users: Sequence[LogitsProcessor] = (),
    prefix_allowed_tokens_fn: Callable[[int, Tensor], Sequence[int]] | None = None,
) -> list[LogitsProcessor]:
    """The processors of one call. A processor of `users` replaces the built-in one of its class, or is added."""
    users = [
        replace(user, prompt=prompt.lengths.prompt) if isinstance(user, c.GrammarConstraint) else user for user in users
    ]
    builtin = [*_from_prompt(options.config, prompt)]
    if prefix_allowed_tokens_fn is not None:
        builtin.append(
            c.PrefixAllowed(prefix_allowed_tokens_fn, options.num_beams, options.rows_per_prompt // options.num_beams)
        )
    builtin += _from_config(options.config, prompt.lengths)
    processors = merge(builtin, users)
    if options.config.do_sample:
        min_keep = 1 if options.num_beams == 1 else max(len(options.config.eos_ids), 1) + 1
        processors += _shaping(options.config, min_keep)
    if options.config.renormalize_logits:
        processors.append(s.Renormalise())
    return processors


def process(processors: Sequence[LogitsProcessor], input_ids: Tensor, scores: Tensor) -> Tensor:
    """Apply `processors` in turn to `scores` [B, V], for rows `input_ids` [B, L]."""
    for processor in processors:
        scores = processor(input_ids, scores)
    return scores


def merge(builtin: list[Any], users: Sequence[Any]) -> list[Any]:
    """`builtin`, with an item of `users` in place of the one of the same class, followed by the rest of `users`."""
    by_class = {type(user): user for user in reversed(users)}
    merged = [by_class.get(type(item), item) for item in builtin]
    return merged + [user for user in users if not any(user is item for item in merged)]


def _from_prompt(config: GenerationConfig, prompt: PromptRows) -> Iterator[LogitsProcessor]:
    """Biases, repetition penalties and n-gram bans, banned words, and minimum lengths."""
    if config.sequence_bias is not None:
        yield c.SequenceBias(config.sequence_bias)
    if config.encoder_repetition_penalty not in (None, 1):
        yield c.PromptRepetitionPenalty(config.encoder_repetition_penalty, prompt.ids, prompt.padding)
    if config.repetition_penalty not in (None, 1):
        yield c.RepetitionPenalty(config.repetition_penalty, prompt.padding)
    if config.no_repeat_ngram_size:
        yield c.NoRepeatNGram(config.no_repeat_ngram_size, prompt.padding)
    if config.encoder_no_repeat_ngram_size:
        yield c.NoRepeatNGramOfPrompt(config.encoder_no_repeat_ngram_size, prompt.padding, prompt.ids)
    if config.bad_words_ids is not None:
        yield c.NoBadWords(config.bad_words_ids, config.eos_ids)
    if config.eos_ids and prompt.lengths.min_length > 0:
        yield c.MinLength(prompt.lengths.min_length, config.eos_ids)
    if config.eos_ids and prompt.lengths.min_new > 0:
        yield c.MinNewTokens(prompt.lengths.prompt, prompt.lengths.min_new, config.eos_ids)


def _from_config(config: GenerationConfig, lengths: Lengths) -> Iterator[LogitsProcessor]:
    """Forced, suppressed and repaired scores, and the length penalty on end-of-text ids."""
    if config.forced_bos_token_id is not None:
        yield c.ForcedBos(config.forced_bos_token_id)
    if config.forced_eos_token_id is not None:
        yield c.ForcedEos(lengths.max_length, as_list(config.forced_eos_token_id))
    if config.remove_invalid_values:
        yield c.RemoveInvalid()
    if config.exponential_decay_length_penalty is not None:
        start, factor = config.exponential_decay_length_penalty
        yield c.ExponentialDecayLength(start, factor, config.eos_ids, lengths.prompt)
    if config.suppress_tokens is not None:
        yield c.SuppressTokens(list(config.suppress_tokens))
    if config.begin_suppress_tokens is not None:
        after_bos = lengths.prompt == 1 and config.forced_bos_token_id is not None
        yield c.SuppressAtBegin(list(config.begin_suppress_tokens), lengths.prompt + after_bos)


def _shaping(config: GenerationConfig, min_keep: int) -> Iterator[LogitsProcessor]:
    """The processors of sampling, which shape the distribution."""
    if config.temperature not in (None, 1):
        yield s.Temperature(config.temperature)
    if config.top_h is not None:
        yield s.TopH(config.top_h)
    if config.top_k:
        yield s.TopK(config.top_k, min_keep)
    if config.top_p is not None and config.top_p < 1:
        yield s.TopP(config.top_p, min_keep)
    if config.min_p is not None:
        yield s.MinP(config.min_p, min_keep)
    if config.typical_p is not None and config.typical_p < 1:
        yield s.Typical(config.typical_p, min_keep)
    if config.epsilon_cutoff is not None and 0 < config.epsilon_cutoff < 1:
        yield s.Epsilon(config.epsilon_cutoff, min_keep)
    if config.eta_cutoff is not None and 0 < config.eta_cutoff < 1:
        yield s.Eta(config.eta_cutoff, min_keep)
