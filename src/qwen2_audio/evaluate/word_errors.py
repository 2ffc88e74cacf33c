"""Word error rates, by jiwer: the one place that imports it."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from ..errors import ConfigError


def load_jiwer() -> ModuleType:
    """The jiwer package. Raises ConfigError where it is not installed."""
    try:
        import jiwer
    except ImportError as error:
        raise ConfigError("Counting word errors needs jiwer: pip install 'qwen2-audio[eval]'.") from error
    return jiwer


def word_error_rate(pairs: Sequence[tuple[str, str]]) -> float:
    """Words wrong, missing or added in all answers, per word of all references; `pairs` are (reference, answer).

    0 is perfect; above 1 where more is added than there was. Raises ConfigError without jiwer.
    """
    references, answers = [reference for reference, _ in pairs], [answer for _, answer in pairs]
    return float(load_jiwer().wer(references, answers))
