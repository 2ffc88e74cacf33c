"""What both sides are given: the same clips, prompts and past, made here so that no file is needed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from qwen2_audio.checkpoint.config import Qwen2Config

_BEFORE = (151644, 8948, 198, 2610, 525, 264, 10950, 17847, 13, 151645, 198)  # the default system turn
_OPEN = (151644, 872, 198, 14755, 220, 16, 25, 220, 151647)  # "user", "Audio 1: ", start of audio
_CLOSE = (151648, 198, 3838, 594, 429, 5112, 30, 151645, 198, 151644, 77091, 198)  # "What's that sound?", "assistant"
_QUESTION = slice(2, 7)  # of _CLOSE: the words
_PAST_BLOCK = 64  # positions of a past that are drawn; the others repeat them


def prompt(num_audio_tokens: int, *, vocab_size: int, audio_id: int, question: int = 0) -> list[int]:
    """The ids of the documented question about one clip, its placeholders expanded.

    `question` above 0 asks something else in as many words. A vocabulary too small for the ids (in tests) gets others
    in their places, never `audio_id`.
    """

    def fit(ids: tuple[int, ...]) -> list[int]:
        return [i if i < vocab_size and i != audio_id else i % audio_id for i in ids]

    close = list(_CLOSE)
    close[_QUESTION] = [word + question for word in close[_QUESTION]]
    return [*fit(_BEFORE), *fit(_OPEN), *([audio_id] * num_audio_tokens), *fit(tuple(close))]


def text(length: int, *, vocab_size: int, audio_id: int) -> list[int]:
    """`length` ids drawn at random, the same at every call, none of them `audio_id`."""
    ids: list[int] = np.random.default_rng(length).integers(0, min(vocab_size, audio_id), length).tolist()
    return ids


def past(config: Qwen2Config, length: int) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """(layer, keys, values) of `length` positions that were never computed, float32 [1, kv_heads, length, head_dim].

    How long a step takes does not depend on what the cache says, and computing it takes minutes.
    """
    generator = torch.Generator().manual_seed(length)
    times = -(-length // _PAST_BLOCK)
    for layer in range(config.num_hidden_layers):
        block = torch.randn(2, 1, config.num_key_value_heads, _PAST_BLOCK, config.head_dim, generator=generator)
        keys, values = block.repeat(1, 1, 1, times, 1)[..., :length, :]
        yield layer, keys, values
