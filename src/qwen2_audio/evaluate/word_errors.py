"""Word errors: the answer's words beside the reference's, with the fewest substitutions, deletions and insertions.

The one place that imports rapidfuzz.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import ConfigError

Operation = tuple[str, str, str]  # "equal", "replace", "delete" or "insert"; the reference's token, the answer's, or ""


def load_levenshtein() -> Any:
    """rapidfuzz's Levenshtein distance. Raises ConfigError where it is not installed."""
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError as error:
        raise ConfigError("Counting word errors needs rapidfuzz: pip install 'qwen2-audio[eval]'.") from error
    return Levenshtein


def align(reference: Sequence[str], answer: Sequence[str]) -> list[Operation]:
    """The answer's tokens beside the reference's. Raises ConfigError without rapidfuzz."""
    aligned: list[Operation] = []
    for piece in load_levenshtein().opcodes(reference, answer):
        left, right = reference[piece.src_start : piece.src_end], answer[piece.dest_start : piece.dest_end]
        count = max(len(left), len(right))
        left, right = [*left, *[""] * (count - len(left))], [*right, *[""] * (count - len(right))]
        aligned += [(piece.tag, a, b) for a, b in zip(left, right, strict=True)]
    return aligned


def word_error_rate(pairs: Sequence[tuple[str, str]]) -> float:
    """Words wrong, missing or added in all answers, per word of all references; `pairs` are (reference, answer).

    0 is perfect; above 1 where more is added than there was; infinite where there was nothing and something is said.
    Raises ConfigError without rapidfuzz.
    """
    distance = load_levenshtein().distance
    words = [(reference.split(), answer.split()) for reference, answer in pairs]
    errors = sum(distance(reference, answer) for reference, answer in words)
    total = sum(len(reference) for reference, _ in words)
    return errors / total if total else float("inf") if errors else 0.0
