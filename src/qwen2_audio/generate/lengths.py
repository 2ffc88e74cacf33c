"""The length limits of an answer, from the prompt's size, the model's context and the options.

`max_length` counts the prompt, and each clip in it as ONE position, as when the documented examples were published:
they therefore work for clips of any length. The model's context counts every position.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..errors import ContextLengthError
from .options import DEFAULT_NEW_TOKENS, Options, warn


@dataclass(frozen=True)
class PromptSize:
    """The size of a batch of prompts."""

    longest: int  # positions of the longest row, without padding
    counted: int  # the width of the batch as max_length counts it, each clip as one position


@dataclass(frozen=True)
class Lengths:
    """The limits of one call."""

    prompt: int  # columns of the prompt's ids; 0 where only embeddings were passed
    max_new: int  # new tokens
    min_length: int  # columns, prompt included
    min_new: int  # new tokens

    @property
    def max_length(self) -> int:
        return self.prompt + self.max_new


def measure(input_ids: Tensor, attention_mask: Tensor, audio_token: int) -> PromptSize:
    """Measure the batch `input_ids` [B, T] with its mask [B, T]. A run of adjacent audio positions is one clip.

    >>> ids = torch.tensor([[5, 63, 63, 63, 6], [0, 0, 0, 7, 8]])
    >>> measure(ids, (ids != 0).long(), 63)
    PromptSize(longest=5, counted=3)
    """
    valid = attention_mask != 0
    audio = (input_ids == audio_token) & valid
    starts = audio.clone()
    starts[:, 1:] &= ~audio[:, :-1]
    positions = valid.sum(1)
    counted = positions - audio.sum(1) + starts.sum(1)
    longest = int(positions.max())
    return PromptSize(longest, int(counted.max()) + input_ids.shape[1] - longest)


def plan_lengths(options: Options, size: PromptSize, context: int, columns: int | None = None) -> Lengths:
    """The limits of one call on prompts of `size`, for a model with a context of `context` positions.

    `columns` are those of the ids before the first new token. None: as many as the longest row has positions.
    A limit from the checkpoint's file, or the default, is lowered to what fits in the context. Raises
    ContextLengthError when the prompt fills the context, or when the caller's own limit does not fit.
    """
    if size.longest >= context:
        raise ContextLengthError(
            f"The prompt takes {size.longest} positions, and the model's context holds {context} with the answer; "
            "shorten the text, or send fewer or shorter clips."
        )
    max_new, from_caller = _new_tokens(options, size)
    available = context - size.longest
    if max_new > available and from_caller:
        raise ContextLengthError(
            f"The prompt's {size.longest} positions and {max_new} new tokens make {size.longest + max_new}, and the "
            f"model's context holds {context}; ask for max_new_tokens={available} or fewer, or shorten the prompt."
        )
    config = options.config
    columns = size.longest if columns is None else columns
    uncounted = columns - size.counted  # columns that max_length and min_length do not count
    min_new = config.min_new_tokens or 0
    min_length = columns + min_new if min_new else (config.min_length or 0) + uncounted
    return Lengths(columns, min(max_new, available), min_length, min_new)


def warn_of_lengths(options: Options, lengths: Lengths) -> None:
    """Warn when no length was set, or when the limits contradict each other."""
    config = options.config
    if config.max_new_tokens is None and config.max_length is None:
        warn(f"Neither max_new_tokens nor max_length is set: at most {DEFAULT_NEW_TOKENS} new tokens come.")
    if options.set_by_caller("max_new_tokens") and options.set_by_caller("max_length"):
        warn(
            f"Both max_new_tokens={config.max_new_tokens} and max_length={config.max_length} are set: "
            "max_new_tokens holds."
        )
    if max(lengths.min_length, lengths.prompt + lengths.min_new) > lengths.max_length:
        least = max(lengths.min_length - lengths.prompt, lengths.min_new)
        warn(f"At least {least} new tokens are asked for, but {lengths.max_new} at most: generation ends there.")


def _new_tokens(options: Options, size: PromptSize) -> tuple[int, bool]:
    """The limit of new tokens, and whether the caller set it. The caller's limits come before the file's."""
    config = options.config
    for from_caller in (True, False):
        if config.max_new_tokens is not None and options.set_by_caller("max_new_tokens") is from_caller:
            return config.max_new_tokens, from_caller
        if config.max_length is not None and options.set_by_caller("max_length") is from_caller:
            return within_max_length(config.max_length, size), from_caller
    return DEFAULT_NEW_TOKENS, False


def within_max_length(max_length: int, size: PromptSize) -> int:
    """The new tokens that `max_length`, prompt included, allows. Raises ContextLengthError when it allows none."""
    if size.counted >= max_length:
        raise ContextLengthError(
            f"The prompt counts {size.counted} (each clip as one) and max_length is {max_length}, prompt included: "
            "nothing is left for the answer. Raise max_length, or better, set max_new_tokens."
        )
    return max_length - size.counted
