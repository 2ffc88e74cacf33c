"""What an engine may use; how an answer is drawn and how long it may be: SamplingParams over generation_config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError, ContextLengthError
from ..generate.config import GenerationConfig
from ..generate.lengths import PromptSize, within_max_length
from ..generate.options import warn
from ..inputs.prompt import Prompt
from ..model.paged import BLOCK
from ..types import FinishReason, SamplingParams

COLDEST = 1e-5  # temperature: below, the likeliest token is drawn anyway, and logits / temperature may be infinite
DEFAULT_MAX_TOKENS = 256  # new tokens, where neither the caller nor the checkpoint names a number


@dataclass(frozen=True)
class EngineSettings:
    """What an engine may use.

    kv_tokens: positions of the KV cache; None: a third of the free memory, 65,536 at most. sounds_bytes: for encoded
    clips. step_tokens: new positions a step; None: what takes about 0.15 s. lookup: guesses a step by prompt lookup.
    draft_tokens: guesses a step by a draft, if there is one; 0: none. reuse: keep what was computed for the next
    request that begins alike.
    """

    kv_tokens: int | None = None
    sounds_bytes: int = 500_000_000
    step_tokens: int | None = None
    sequences: int = 32
    waiting: int = 1024
    lookup: int = 0
    draft_tokens: int = 4
    reuse: bool = True

    def __post_init__(self) -> None:
        least = {"kv_tokens": BLOCK, "step_tokens": 1, "sequences": 1, "waiting": 1, "lookup": 0, "draft_tokens": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise ConfigError(f"{name} is {value}; expected a number of at least {low}.")


@dataclass(frozen=True)
class Limit:
    """New tokens at most, and the reason an answer of that many ends for."""

    tokens: int
    reason: FinishReason  # "length", or "context" where only the model's context ended it


def limit(prompt: Prompt, params: SamplingParams, config: GenerationConfig, context: int) -> Limit:
    """The limit of an answer to `prompt` for a model whose context holds `context` positions.

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
    """Say that a checkpoint's `num_beams` is not what an engine does."""
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
