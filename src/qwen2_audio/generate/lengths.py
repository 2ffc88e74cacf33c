"""How long an answer may be: the prompt as it is counted, the model's context, and what was asked for.

`max_length` counts the prompt, and each clip in it as ONE position, as when the documented examples were published;
so they run for clips of any length. The model's context counts every position.
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
    counted: int  # the width of the batch as max_length counts it: each clip is one


@dataclass(frozen=True)
class Lengths:
    """The limits of one call, in columns of the batch (prompt included) except `max_new` and `min_new`."""

    prompt: int
    max_new: int
    min_length: int
    min_new: int

    @property
    def max_length(self) -> int:
        return self.prompt + self.max_new


def measure(input_ids: Tensor, attention_mask: Tensor, audio_token: int) -> PromptSize:
    """Size up the batch `input_ids` [B, T] with its mask [B, T]. An unbroken run of audio positions is one clip.

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


def plan_lengths(options: Options, size: PromptSize, context: int) -> Lengths:
    """The limits of one call on prompts of `size`, for a model whose context holds `context` positions.

    Raises ContextLengthError where the prompt leaves no room, or less than was asked for. A limit that only stands in
    the checkpoint's file, or the default, is lowered to what fits.
    """
    if size.longest >= context:
        raise ContextLengthError(
            f"The prompt takes {size.longest} positions, and the model's context holds {context} with the answer; "
            "shorten the text, or send fewer or shorter clips."
        )
    max_new, asked = _new_tokens(options, size)
    room = context - size.longest
    if max_new > room and asked:
        raise ContextLengthError(
            f"The prompt's {size.longest} positions and {max_new} new tokens make {size.longest + max_new}, and the "
            f"model's context holds {context}; ask for max_new_tokens={room} or fewer, or shorten the prompt."
        )
    config = options.config
    hidden = size.longest - size.counted  # columns max_length and min_length do not count
    min_new = config.min_new_tokens or 0
    min_length = size.longest + min_new if min_new else (config.min_length or 0) + hidden
    return Lengths(size.longest, min(max_new, room), min_length, min_new)


def warn_of_lengths(options: Options, lengths: Lengths) -> None:
    """Say once what was left to a default or contradicts itself."""
    config = options.config
    if config.max_new_tokens is None and config.max_length is None:
        warn(f"Neither max_new_tokens nor max_length is set: at most {DEFAULT_NEW_TOKENS} new tokens come.")
    if options.asked_for("max_new_tokens") and options.asked_for("max_length"):
        warn(
            f"Both max_new_tokens={config.max_new_tokens} and max_length={config.max_length} are set: "
            "max_new_tokens holds."
        )
    if max(lengths.min_length, lengths.prompt + lengths.min_new) > lengths.max_length:
        least = max(lengths.min_length - lengths.prompt, lengths.min_new)
        warn(f"At least {least} new tokens are asked for, but {lengths.max_new} at most: generation ends there.")


def _new_tokens(options: Options, size: PromptSize) -> tuple[int, bool]:
    """The most new tokens, and whether the caller asked for it. What he asked for comes before the file's limits."""
    config = options.config
    for asked in (True, False):
        if config.max_new_tokens is not None and options.asked_for("max_new_tokens") is asked:
            return config.max_new_tokens, asked
        if config.max_length is not None and options.asked_for("max_length") is asked:
            return within_max_length(config.max_length, size), asked
    return DEFAULT_NEW_TOKENS, False


def within_max_length(max_length: int, size: PromptSize) -> int:
    """The new tokens that `max_length` leaves, prompt included. Raises ContextLengthError where it leaves none."""
    if size.counted >= max_length:
        raise ContextLengthError(
            f"The prompt counts {size.counted} (each clip as one) and max_length is {max_length}, prompt included: "
            "nothing is left for the answer. Raise max_length, or better, set max_new_tokens."
        )
    return max_length - size.counted
