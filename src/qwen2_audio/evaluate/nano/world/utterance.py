"""What somebody says, and the rule that keeps test sentences out of training."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Utterance:
    """A sentence that is spoken, and what nano answers to it in a voice chat."""

    text: str  # as it is written down: "What is two plus two?"
    family: str  # of a fact, or the name of the function that made it
    answer: str


def plain(text: str) -> str:
    """Lower-case words with single blanks, for comparing and for CTC: "Hello, Ben!" -> "hello ben"."""
    return " ".join(re.findall(r"[a-z']+", text.lower()))


def split_of(text: str) -> str:
    """The split that owns a sentence: a hash of its words. One eighth each is for test and development."""
    digest = hashlib.sha256(f"nano says {plain(text)}".encode()).digest()
    return {0: "test", 1: "dev"}.get(digest[0] % 8, "train")


def a(noun: str) -> str:
    """A noun with its article: "an apple"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def sentence(text: str, end: str = ".") -> str:
    """With a capital first letter and an end."""
    return text[0].upper() + text[1:] + end
