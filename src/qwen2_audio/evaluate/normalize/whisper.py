"""OpenAI's English and basic normalisers of Whisper, by whisper-normalizer: the one place that imports it."""

from __future__ import annotations

import functools
from collections.abc import Callable

from ...errors import ConfigError

Normalizer = Callable[[str], str]
# Words that whisper-normalizer rewrites from 0.1.2 on. OpenAI's own, which the official evaluation carries, never did.
ADDED_LATER = ("kinda", "sorta", "dunno", "cause")
# What OpenAI's makes of these; a release that makes something else of one has other rules, and would move every score.
KNOWN = (
    ("KINDA SORTA DUNNO 'cause", "kinda sorta dunno cause"),
    ("HE DEFENDED HIS CAUSE", "he defended his cause"),
    ("Mr. Quilter's the apostle", "mister quilter is the apostle"),
    ("IT'S BEEN A LONG DAY", "it has been a long day"),
    ("THE ARCHAEOLOGY OF MARS", "the archeology</span> of mars"),
    ("I'll have 20 dollars and fifty cents", "i will have $20.50"),
    ("the score was 2-1", "the score was 2 one"),
    ("double five triple two", "55222"),
    ("twenty-first century CAFÉ", "21st century cafe"),
    ("[LAUGHTER] hmm O'CLOCK (APPLAUSE)", "0 clock"),
)


@functools.cache
def english_normalizer() -> Normalizer:
    """OpenAI's English normaliser. Raises ConfigError without the package, or where it makes something else."""
    normalizer = _load("english").EnglishTextNormalizer()
    for word in ADDED_LATER:
        normalizer.replacers.pop(rf"\b{word}\b", None)
    for text, expected in KNOWN:
        if (found := normalizer(text)) != expected:
            raise ConfigError(
                f"whisper-normalizer makes {found!r} of {text!r}, and OpenAI's normaliser {expected!r}: scores would "
                "not be the official ones. Install the version that constraints.txt names."
            )
    return _text(normalizer)


@functools.cache
def basic_normalizer() -> Normalizer:
    """The one for all languages: lower case, no brackets, symbols to spaces; letters keep their accents."""
    return _text(_load("basic").BasicTextNormalizer(remove_diacritics=False))


def _text(normalizer: Callable[[str], object]) -> Normalizer:
    return lambda text: str(normalizer(text))


def _load(module: str):  # type: ignore[no-untyped-def]
    import importlib

    try:
        return importlib.import_module(f"whisper_normalizer.{module}")
    except ImportError as error:
        raise ConfigError(
            "The official word error rate needs whisper-normalizer: pip install 'qwen2-audio[eval]'."
        ) from error
