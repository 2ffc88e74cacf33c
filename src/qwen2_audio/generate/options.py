"""Resolve the options of one call from the caller's arguments, the checkpoint's generation_config and defaults."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError, refuse_unknown
from .config import GenerationConfig

# The reference's defaults that do more than leave a feature off (transformers 5.23, `configuration_utils.py`).
DEFAULTS: dict[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "num_return_sequences": 1,
    "early_stopping": False,
    "length_penalty": 1.0,
    "use_cache": True,
    "temperature": 1.0,
    "top_k": 50,
    "max_matching_ngram_size": 2,
}
DEFAULT_NEW_TOKENS = 20

_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
_BEAMS = ("early_stopping", "length_penalty")

# Options of the reference that are not offered -> their values without effect, which are accepted.
_NOT_OFFERED: dict[str, tuple[Any, ...]] = {
    "guidance_scale": (1, 1.0),
    "watermarking_config": (),
    "token_healing": (False,),
    "low_memory": (False,),
    "penalty_alpha": (0, 0.0),
    "dola_layers": (),
    "diversity_penalty": (0, 0.0),
    "num_beam_groups": (1,),
    "constraints": (),
    "force_words_ids": (),
    "use_mtp": (False,),
    "cache_implementation": ("dynamic",),
    "cache_config": (),
    "max_cache_len": (),
    "prefill_chunk_size": (),
    "assistant_early_exit": (),
    "compile_config": (),
    "disable_compile": (True, False),
    "continuous_batching_config": (),
    "assistant_model": (),
    "assistant_tokenizer": (),
    "custom_generate": (),
    "negative_prompt_ids": (),
    "negative_prompt_attention_mask": (),
    "synced_gpus": (False,),
    "is_assistant": (False,),
}
_INSTEAD = {
    "assistant_model": "Use prompt_lookup_num_tokens, which needs no second model.",
    "cache_implementation": "There is one cache, 'dynamic'; leave the option out.",
}
_INPUTS = (
    *("input_ids", "input_features", "attention_mask", "feature_attention_mask"),
    *("inputs", "inputs_embeds", "position_ids", "past_key_values"),
)
_ARGUMENTS = (
    *("generation_config", "logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn"),
    *("streamer", "tokenizer", "seed", "generator"),
)


@dataclass(frozen=True)
class Options:
    """The resolved options of one call, and the names of those that the caller set."""

    config: GenerationConfig
    caller_names: frozenset[str]

    def set_by_caller(self, name: str) -> bool:
        """Whether the caller set `name` to a value other than None."""
        return name in self.caller_names and getattr(self.config, name) is not None

    @property
    def num_beams(self) -> int:
        return self.config.num_beams or 1

    @property
    def rows_per_prompt(self) -> int:
        """Decoded rows per prompt: its beams, or its samples."""
        return self.num_beams if self.num_beams > 1 else self.config.num_return_sequences or 1


def resolve(of_model: GenerationConfig | None, passed: Any, kwargs: dict[str, Any]) -> Options:
    """Resolve the options of one call. Precedence: kwargs, the config `passed`, the model's own config, defaults.

    Raises ConfigError for unknown options, options that are not offered, and values that are invalid or contradict
    each other.
    """
    _refuse_unknown(kwargs, "generate()")
    passed = _as_config(passed)
    layers = [DEFAULTS, vars(of_model) if of_model is not None else {}, vars(passed)]
    config = GenerationConfig()
    for layer in layers:
        for key, value in layer.items():
            if value is not None:
                setattr(config, key, _plain(deepcopy(value)))
    for key, value in kwargs.items():
        setattr(config, key, _plain(value))
    _refuse_not_offered(config)
    caller_names = {key for key, value in vars(passed).items() if value is not None} | set(kwargs)
    options = Options(config, frozenset(caller_names & set(GenerationConfig.names())))
    config.check_values()
    _refuse_contradictions(config)
    _warn_of_ineffective(options)
    return options


def warn(message: str) -> None:
    """Issue a UserWarning at the nearest calling line outside this package and torch."""
    level, frame = 2, sys._getframe(1)
    package = __name__.partition(".")[0]
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in (package, "torch"):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)


def _as_config(passed: Any) -> GenerationConfig:
    if passed is None:
        return GenerationConfig()
    if isinstance(passed, GenerationConfig):
        return passed
    if isinstance(passed, dict):  # perhaps read from a file, which has metadata beside the options
        metadata = [key for key in passed if key == "transformers_version" or key.startswith("_")]
        _refuse_unknown(set(passed) - set(metadata), "generation_config")
        return GenerationConfig.from_dict(passed)
    if not hasattr(passed, "to_dict"):
        raise ConfigError(f"generation_config is {passed!r}; expected a GenerationConfig or a dict.")
    return GenerationConfig.from_dict(passed.to_dict())


def _plain(value: Any) -> Any:
    """A number or list in place of one of numpy or torch."""
    return value.tolist() if hasattr(value, "tolist") else value


def _refuse_unknown(names: Iterable[str], where: str) -> None:
    """Options that are not offered have a sentence of their own, `_refuse_not_offered`."""
    names = [name for name in names if name not in _NOT_OFFERED]
    near = (*_INPUTS, *_ARGUMENTS)
    refuse_unknown(names, GenerationConfig.names(), ConfigError, f"{where} has no option", near=near)


def _refuse_not_offered(config: GenerationConfig) -> None:
    for name, neutral in _NOT_OFFERED.items():
        value = vars(config).get(name)
        if value is not None and not any(value is n or (type(value) is type(n) and value == n) for n in neutral):
            shown = f" (found {value!r})" if isinstance(value, str | int | float) else ""
            raise ConfigError(f"{name} is not offered{shown}. {_INSTEAD.get(name, 'Leave it out.')}")


def _refuse_contradictions(config: GenerationConfig) -> None:
    beams, answers = config.num_beams or 1, config.num_return_sequences or 1
    if config.do_sample and config.temperature == 0:
        raise ConfigError("temperature is 0; expected a number above 0. For greedy decoding set do_sample=False.")
    if beams > 1 and answers > beams:
        raise ConfigError(f"num_return_sequences is {answers} with num_beams={beams}; ask for {beams} at most.")
    if beams == 1 and answers > 1 and not config.do_sample:
        raise ConfigError(
            f"num_return_sequences is {answers}, but greedy decoding finds one answer; "
            f"set do_sample=True or num_beams={answers}."
        )
    if config.exponential_decay_length_penalty is not None and not config.eos_ids:
        raise ConfigError("exponential_decay_length_penalty needs an eos_token_id to raise; none is set.")
    if config.prompt_lookup_num_tokens is not None:
        _refuse_with_lookup(config)


def _refuse_with_lookup(config: GenerationConfig) -> None:
    for name, required in {"num_beams": 1, "num_return_sequences": 1, "use_cache": True}.items():
        value = getattr(config, name)
        if value not in (None, required):
            raise ConfigError(f"{name} is {value!r}; prompt_lookup_num_tokens needs {name}={required}.")
    for name in ("output_attentions", "output_hidden_states"):
        if getattr(config, name):
            raise ConfigError(f"{name} is not offered with prompt_lookup_num_tokens; leave one of the two out.")


def _warn_of_ineffective(options: Options) -> None:
    config = options.config
    groups = (
        (not config.do_sample, _SAMPLING, "do_sample=True"),
        (options.num_beams == 1, _BEAMS, "num_beams above 1"),
    )
    for off, group, condition in groups:
        set_names = [name for name in group if options.set_by_caller(name)]
        names = [name for name in set_names if getattr(config, name) not in (DEFAULTS.get(name), 0)]
        if off and names:
            warn(f"Without effect here: {', '.join(names)}. That needs {condition}.")
