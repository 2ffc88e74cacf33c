"""What an engine may use, and what one request gets: its sampling options and its length limit."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from ..checkpoint.memory import available_bytes
from ..errors import ConfigError, ContextLengthError
from ..generate import processors
from ..generate.config import GenerationConfig
from ..generate.lengths import Lengths, PromptSize, within_max_length
from ..generate.options import Options, resolve, warn
from ..inputs.prompt import Prompt
from ..model.paged import BLOCK
from ..text.chat_template import IM_END
from ..text.tokenizer import Tokenizer
from ..types import FinishReason, SamplingParams

if TYPE_CHECKING:
    from .model_interface import EngineModel

T = TypeVar("T")

COLDEST = 1e-5  # temperature: below, the likeliest token is drawn anyway, and logits / temperature may be infinite
DEFAULT_MAX_TOKENS = 256  # new tokens, where neither the caller nor the checkpoint names a number
MAX_KV_TOKENS = 1 << 16  # positions of the cache, even if memory would hold more
MEMORY_SHARE = 0.3  # of the free memory goes to the KV cache, unless kv_tokens is given
# Names that EngineSettings had until version 0.2; they go in 0.3.
RENAMED = {
    "sounds_bytes": "encoder_cache_bytes",
    "step_tokens": "max_num_batched_tokens",
    "sequences": "max_num_seqs",
    "waiting": "max_waiting",
    "lookup": "num_prompt_lookup_tokens",
    "draft_tokens": "num_speculative_tokens",
    "reuse": "enable_prefix_caching",
}


def current_names(options: dict[str, Any], allowed: Collection[str], where: str) -> dict[str, Any]:
    """`options` under their current names, with a FutureWarning for each that was renamed.

    Raises TypeError, as a call with a keyword that does not exist, for a name that is not among the `allowed` old ones.
    """
    current = {}
    for name, value in options.items():
        if name not in allowed:
            raise TypeError(f"{where} got an unexpected keyword argument {name!r}")
        warnings.warn(f"{where}: {name} is now {RENAMED[name]}; the old name goes in 0.3.", FutureWarning, stacklevel=3)
        current[RENAMED[name]] = value
    return current


def _accept_renamed(cls: type[T]) -> type[T]:
    init: Callable[..., None] = cls.__init__

    @functools.wraps(init)
    def with_old_names(self: T, *args: Any, **options: Any) -> None:
        old = {name: options.pop(name) for name in RENAMED if name in options}
        init(self, *args, **options, **current_names(old, RENAMED, cls.__name__))

    setattr(cls, "__init__", with_old_names)  # noqa: B010  (mypy forbids assigning to a method)
    return cls


@_accept_renamed
@dataclass(frozen=True)
class EngineSettings:
    """What an engine may use.

    kv_tokens: positions of the KV cache; None: MEMORY_SHARE of the free memory, MAX_KV_TOKENS at most.
    encoder_cache_bytes: for embeddings of clips. max_num_batched_tokens: new positions a step; None: as many as take
    about 0.15 s. max_num_seqs: answers computed at a time. max_waiting: answers in line. num_prompt_lookup_tokens:
    draft tokens a step by prompt lookup. num_speculative_tokens: draft tokens a step by a draft model, where there is
    one; 0: none. enable_prefix_caching: keep clips, keys and values for later requests. lora_folder, lora_modules:
    where the adapters lie that a request may name: by their folders' names in one folder, and by names of their own.
    max_loras: adapters in memory at a time.

    Raises ConfigError for a number that is too small, and for a folder that is not there.
    """

    kv_tokens: int | None = None
    encoder_cache_bytes: int = 500_000_000
    max_num_batched_tokens: int | None = None
    max_num_seqs: int = 32
    max_waiting: int = 1024
    num_prompt_lookup_tokens: int = 0
    num_speculative_tokens: int = 4
    enable_prefix_caching: bool = True
    lora_folder: Path | None = None
    lora_modules: Mapping[str, Path] = field(default_factory=dict)
    max_loras: int = 8

    def __post_init__(self) -> None:
        least = {
            "kv_tokens": BLOCK,
            "max_num_batched_tokens": 1,
            "max_num_seqs": 1,
            "max_waiting": 1,
            "num_prompt_lookup_tokens": 0,
            "num_speculative_tokens": 0,
            "max_loras": 1,
        }
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise ConfigError(f"{name} is {value}; expected a number of at least {low}.")
        if self.lora_folder is not None:
            object.__setattr__(self, "lora_folder", Path(self.lora_folder))
        if self.lora_folder is not None and not self.lora_folder.is_dir():
            raise ConfigError(f"{self.lora_folder} is not a folder; expected one with a folder for each adapter in it.")
        for name, path in self.lora_modules.items():
            if not name or not Path(path).is_dir():
                raise ConfigError(f"The adapter {name!r} is to lie in {path}, no folder; expected NAME=FOLDER.")

    @property
    def adapters_allowed(self) -> bool:
        """Whether requests may name adapters."""
        return self.lora_folder is not None or bool(self.lora_modules)

    def num_blocks(self, block_bytes: int, device: torch.device) -> int:
        """Blocks of the KV cache, of `block_bytes` each, on `device`."""
        if self.kv_tokens is not None:
            return -(-self.kv_tokens // BLOCK)
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_bytes()
        affordable = MAX_KV_TOKENS // BLOCK if free is None else int(free * MEMORY_SHARE) // block_bytes
        return max(1, min(affordable, MAX_KV_TOKENS // BLOCK))


@dataclass(frozen=True)
class RequestOptions:
    """How the answers of a request are sampled."""

    options: Options  # the request's over the checkpoint's, as `generate` resolves them
    eos_ids: frozenset[int]
    greedy: bool  # the likeliest token is taken as it is: no sampling, no logits processors


class OptionsResolver:
    """Resolves SamplingParams over a checkpoint's generation_config. From any thread."""

    def __init__(self, model: EngineModel, tokenizer: Tokenizer) -> None:
        self._model = model
        turn_ends = [token for token in tokenizer.all_special_tokens if token in (IM_END, tokenizer.eos_token)]
        self._turn_ends = frozenset(tokenizer.convert_tokens_to_ids(turn_ends))
        self._context = int(model.config.text_config.max_position_embeddings)
        self._resolved: dict[str, RequestOptions] = {}  # the last one, as most requests have equal options
        warn_of_beams(model.generation_config)

    @property
    def eos_ids(self) -> frozenset[int]:
        """Tokens that end an answer: the checkpoint's, and the ends of a turn."""
        return self._turn_ends | frozenset(self._model.generation_config.eos_ids)

    def resolve(self, params: SamplingParams) -> RequestOptions:
        """Raises ConfigError for options that cannot work."""
        asked = generate_options(params)
        extras = bool(params.logit_bias or params.frequency_penalty or params.presence_penalty)
        key = f"{asked} {extras} {vars(self._model.generation_config)}"
        resolved = self._resolved.get(key)
        if resolved is None:
            ends = {"eos_token_id": sorted(self.eos_ids) or None, "stop_strings": None}
            options = resolve(self._model.generation_config, None, {**asked, **ends})
            greedy = not extras and not options.config.do_sample and not _has_processors(options)
            resolved = RequestOptions(options, frozenset(options.config.eos_ids), greedy)
            self._resolved = {key: resolved}
        return resolved

    def limit(self, prompt: Prompt, params: SamplingParams, resolved: RequestOptions) -> Limit:
        """Raises ContextLengthError and ConfigError as `limit` does, and ConfigError for ids outside the vocabulary and
        for a prompt_logprobs_start outside the prompt."""
        vocabulary = self._model.config.text_config.vocab_size
        outside = [token for token in params.logprob_token_ids if not 0 <= token < vocabulary]
        if outside:
            raise ConfigError(f"logprob_token_ids has {outside[0]}; expected ids from 0 to {vocabulary - 1}.")
        start, length = params.prompt_logprobs_start, len(prompt.ids)
        if params.prompt_logprobs is not None and not -length <= start < length:
            raise ConfigError(f"prompt_logprobs_start is {start}, and the prompt has {length} positions.")
        return limit(prompt, params, resolved.options.config, self._context)

    def check_fits(self, prompt: Prompt) -> None:
        """Raises ContextLengthError for a prompt that is longer than the context, with no answer behind it."""
        if len(prompt.ids) > self._context:
            raise ContextLengthError(
                f"It takes {len(prompt.ids)} positions, {prompt.audio_tokens} of them sound, and the model's context "
                f"holds {self._context}; shorten it, or embed its parts."
            )

    def stop_strings(self, params: SamplingParams) -> tuple[str, ...]:
        """The caller's stop strings and the checkpoint's."""
        return stop_strings(params, self._model.generation_config)


def _has_processors(options: Options) -> bool:
    config = options.config
    lengths = Lengths(0, 0, config.min_length or 0, config.min_new_tokens or 0)
    rows = processors.PromptRows(torch.empty(1, 0), None, lengths)
    return bool(processors.build(options, rows))


@dataclass(frozen=True)
class Limit:
    """New tokens at most, and the reason an answer of that many ends for."""

    tokens: int
    reason: FinishReason  # "length", or "context" where only the model's context ended it


def limit(prompt: Prompt, params: SamplingParams, config: GenerationConfig, context: int) -> Limit:
    """The limit of an answer to `prompt`, for a model whose context is `context` positions.

    Raises ContextLengthError where nothing fits, or less than `params.max_tokens`; a number that only stands in
    generation_config, or the default, gives way to what fits.
    """
    room = context - len(prompt.ids)
    if room < 1:
        raise ContextLengthError(
            f"The conversation takes {len(prompt.ids)} positions, {prompt.audio_tokens} of them sound, and the model's "
            f"context holds {context} with the answer; shorten it, or send fewer or shorter clips."
        )
    if params.max_tokens is not None and params.max_tokens > room:
        raise ContextLengthError(
            f"The conversation's {len(prompt.ids)} positions and max_tokens={params.max_tokens} make "
            f"{len(prompt.ids) + params.max_tokens}, and the model's context holds {context}; "
            f"ask for max_tokens={room} or fewer, or shorten the conversation."
        )
    wanted = params.max_tokens or config.max_new_tokens
    if not wanted and config.max_length is not None:
        wanted = within_max_length(
            config.max_length, PromptSize(len(prompt.ids), len(prompt.ids) - prompt.num_uncounted)
        )
    wanted = wanted or DEFAULT_MAX_TOKENS
    if params.min_tokens is not None and params.min_tokens > min(wanted, room):
        raise ConfigError(
            f"min_tokens is {params.min_tokens} and at most {min(wanted, room)} new tokens may come; raise max_tokens."
        )
    return Limit(wanted, "length") if wanted <= room else Limit(room, "context")


def warn_of_beams(config: GenerationConfig) -> None:
    """Warn that the engine ignores a checkpoint's `num_beams`."""
    if (beams := config.num_beams or 1) > 1:
        warn(f"The checkpoint asks for num_beams={beams}; here tokens are drawn one by one, beams are generate()'s.")


def generate_options(params: SamplingParams) -> dict[str, Any]:
    """The options of `generate` that `params` ask for; what is left out comes from the checkpoint.

    temperature 0, or one that no logits could be divided by, is greedy, whatever else is set. Naming a higher one,
    top_p, top_k or min_p draws.
    """
    options: dict[str, Any] = {"num_beams": 1, "num_return_sequences": 1, "return_dict_in_generate": False}
    if params.min_tokens is not None:
        options["min_new_tokens"] = params.min_tokens
    if params.repetition_penalty is not None:
        options["repetition_penalty"] = float(params.repetition_penalty)
    if params.temperature is not None and params.temperature < COLDEST:
        return {**options, "do_sample": False}
    drawn = {
        name: getattr(params, name)
        for name in ("temperature", "top_p", "top_k", "min_p")
        if getattr(params, name) is not None
    }
    return {**options, **drawn, **({"do_sample": True} if drawn else {})}


def stop_strings(params: SamplingParams, config: GenerationConfig) -> tuple[str, ...]:
    """The caller's stop strings and the checkpoint's."""
    of_file = config.stop_strings or ()
    return (*params.stop, *((of_file,) if isinstance(of_file, str) else of_file))
