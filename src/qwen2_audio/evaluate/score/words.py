"""Free answers against references without a judge: folded equality, containment, overlap of words."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

ARTICLES = ("a", "an", "the")


def words(text: str) -> list[str]:
    """Lower-case words without articles and punctuation; each Chinese or Japanese sign is one."""
    text = unicodedata.normalize("NFKC", text).lower()
    found = re.findall(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+", text)
    return [word for word in found if word not in ARTICLES] or found


def equals_reference(answer: str, references: Sequence[str]) -> bool:
    """Whether the words are those of one of `references`."""
    return any(words(answer) == words(reference) for reference in references)


def contains_reference(answer: str, references: Sequence[str]) -> bool:
    """Whether the words of one of `references` stand in the answer one after another."""
    said = f" {' '.join(words(answer))} "
    return any(f" {' '.join(words(reference))} " in said for reference in references if words(reference))


def token_f1(answer: str, references: Sequence[str]) -> float:
    """The best F1 of the words that an answer shares with one of `references`, as SQuAD counts it."""
    return max((_f1(words(answer), words(reference)) for reference in references), default=0.0)


def _f1(said: Sequence[str], right: Sequence[str]) -> float:
    shared = sum((Counter(said) & Counter(right)).values())
    return 2 * shared / (len(said) + len(right)) if shared else 0.0
