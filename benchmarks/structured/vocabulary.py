"""A tokenizer as large as a checkpoint's vocabulary, for random checkpoints, which have none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qwen2_audio.text.vocabulary import UNPRINTABLE

WITHOUT_TEXT = 400  # rows of the model at the end that are no tokens; the official checkpoint has about as many
BLANK = "\u0120"  # the vocabulary's letter for a blank


class WordTokenizer:
    """Every byte, then made-up words of two to nine letters, half of them behind a blank.

    Attributes: `size`; `end`, the token that ends an answer, and `never`, one that no answer may have, without text.
    """

    all_special_tokens: tuple[str, ...] = ()
    eos_token = None

    def __init__(self, size: int) -> None:
        """`size`: rows of the model's logits."""
        letters = [chr(byte) if byte not in UNPRINTABLE else chr(256 + UNPRINTABLE.index(byte)) for byte in range(256)]
        words = dict.fromkeys(letters)
        draws = np.random.default_rng(size)
        while len(words) < size - WITHOUT_TEXT:
            lengths = draws.integers(2, 10, 1 << 14)
            text = draws.integers(ord("a"), ord("z") + 1, int(lengths.sum()), dtype=np.uint8).tobytes().decode()
            for number, end in enumerate(lengths.cumsum().tolist()):
                words.setdefault((BLANK if number % 2 else "") + text[end - int(lengths[number]) : end])
        self._ids = {word: token for token, word in enumerate(list(words)[: size - WITHOUT_TEXT])}
        self._letters = letters
        self.size, self.end, self.never = size, size - 2, size - 3
        self.added_tokens_decoder: dict[int, Any] = {}

    def get_vocab(self) -> dict[str, int]:
        return self._ids

    def encode(self, text: str, *, control_tokens: bool = True) -> list[int]:
        """A token for each byte."""
        return [self._ids[self._letters[byte]] for byte in text.encode()]

    def convert_tokens_to_ids(self, tokens: Sequence[str]) -> list[int]:
        return []

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return "".join(f"{token} " for token in ids)

    def token_bytes(self, token: int) -> bytes:
        return self.decode([token]).encode()
