"""The prompts that all sides get: token ids made here, so that no tokenizer takes part.

Imports next to nothing: what a side's library takes to import is measured in a process that has imported this.
"""

from __future__ import annotations

import numpy as np

from qwen2_audio.checkpoint.config import Qwen2AudioConfig

_BEFORE = (151644, 8948, 198, 2610, 525, 264, 10950, 17847, 13, 151645, 198)  # the default system turn
_OPEN = (151644, 872, 198, 14755, 220, 16, 25, 220, 151647)  # "user", "Audio 1: ", start of audio
_CLOSE = (151648, 198, 3838, 594, 429, 5112, 30, 151645, 198, 151644, 77091, 198)  # "What's that sound?", "assistant"
_QUESTION = slice(2, 7)  # of _CLOSE: the words


def question_ids(num_audio_tokens: int, *, vocab_size: int, audio_id: int, question: int = 0) -> list[int]:
    """The ids of the documented question about one clip, its placeholders expanded.

    `question` above 0 asks something else in as many words. A vocabulary too small for the ids (in tests) gets others
    in their places, never `audio_id`.
    """

    def fit(ids: tuple[int, ...]) -> list[int]:
        return [i if i < vocab_size and i != audio_id else i % audio_id for i in ids]

    close = list(_CLOSE)
    close[_QUESTION] = [word + question for word in close[_QUESTION]]
    return [*fit(_BEFORE), *fit(_OPEN), *([audio_id] * num_audio_tokens), *fit(tuple(close))]


def random_ids(length: int, *, vocab_size: int, audio_id: int) -> list[int]:
    """`length` ids drawn at random, the same at every call, none of them `audio_id`."""
    ids: list[int] = np.random.default_rng(length).integers(0, min(vocab_size, audio_id), length).tolist()
    return ids


def question_ids_for(config: Qwen2AudioConfig, num_audio_tokens: int, question: int = 0) -> list[int]:
    """`question_ids` in the vocabulary of `config`."""
    vocab_size, audio_id = config.text_config.vocab_size, config.audio_token_index
    return question_ids(num_audio_tokens, vocab_size=vocab_size, audio_id=audio_id, question=question)
