"""A tokenizer for random checkpoints, which have none: no text comes of any token, and none ends a turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Silent:
    """As much of a Tokenizer as an engine asks for."""

    all_special_tokens: tuple[str, ...] = ()
    eos_token: str | None = None

    def convert_tokens_to_ids(self, tokens: Sequence[str]) -> list[int]:
        return []

    def decode(self, ids: Any, skip_special_tokens: bool = False) -> str:
        return ""

    def token_bytes(self, token: int) -> bytes:
        return b""
