"""From a transcript to the tokens whose errors the official evaluation counts (EVAL A5)."""

from __future__ import annotations

import functools
import re
import unicodedata

from .cantonese import to_simplified
from .chinese import normalize_chinese
from .whisper import basic_normalizer, english_normalizer

CHARACTERS = ("zh", "yue")  # languages whose tokens are characters
TAG = re.compile(r"<\|.*?\|>")


def clean(text: str, language: str) -> str:
    """Without the model's tags, doubled space, and space before punctuation; Chinese without any space."""
    text = re.sub(r"\s+", " ", TAG.sub(" ", text))
    text = re.sub(r" ?([!,.?;:])", r"\1", text).lstrip(" ")
    return re.sub(r"\s+", "", text) if language == "zh" else text


@functools.lru_cache(maxsize=65536)  # a report asks again what a score has asked, and English takes over a millisecond
def normalize(text: str, language: str) -> str:
    """`clean`, and then the language's normalisers; English passes two. Raises ConfigError without their packages."""
    text = clean(text, language)
    if language == "yue":
        text = to_simplified(text)
    if language == "en":
        text = english_normalizer()(text)
    return normalize_chinese(text) if language == "zh" else basic_normalizer()(text)


def tokens(text: str, language: str, *, characters: bool | None = None) -> list[str]:
    """The words of a transcript, or its characters where the language has no spaces or `characters` asks for them."""
    words = [word for word in normalize(text, language).split(" ") if not _is_punctuation(word)]
    words = " ".join(words).lower().split()
    by_character = language in CHARACTERS if characters is None else characters
    return list("".join(words)) if by_character else words


def _is_punctuation(word: str) -> bool:
    return all(unicodedata.category(character).startswith("P") for character in word)


def chain(language: str) -> str:
    """The normalisers' names for a signature."""
    return {"en": "openai-english+basic", "zh": "speechio-tn", "yue": "zhconv-zh-cn+basic"}.get(
        language, "openai-basic"
    )
