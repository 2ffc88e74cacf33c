"""A tokenizer for random checkpoints, which have none."""

from __future__ import annotations

from collections.abc import Sequence


class IdTokenizer:
    """The text of a token is its id and a blank. No token ends an answer."""

    all_special_tokens: tuple[str, ...] = ()
    eos_token = None

    def convert_tokens_to_ids(self, tokens: Sequence[str]) -> list[int]:
        return []

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return "".join(f"{token} " for token in ids)

    def token_bytes(self, token: int) -> bytes:
        return self.decode([token]).encode()


def ids_in(text: str) -> list[int]:
    """The token ids that IdTokenizer decoded to `text`."""
    return [int(word) for word in text.split()]
