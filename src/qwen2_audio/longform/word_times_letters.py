"""Words to the letters that an aligner knows. Other scripts are romanised by `anyascii`; what has no letter, such as a
digit, is a wildcard, which any letter may fill."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

SYMBOLS = " abcdefghijklmnopqrstuvwxyz'"  # a head's classes from 1 on; 0 is CTC's blank
BLANK, SPACE = 0, 1
WILDCARD = -1


def spell(word: str, symbols: str = SYMBOLS) -> list[int]:
    """The classes of a word's letters, WILDCARD for a letter, digit or sign that is none; [] where nothing is spoken,
    as of a dash."""
    classes: list[int] = []
    for character in word.strip().lower().replace("\u2019", "'"):
        if character in symbols:
            classes.append(symbols.index(character) + 1)
        elif character.isalnum() and not character.isascii():
            known = [symbols.index(letter) + 1 for letter in romanised(character).lower() if letter in symbols]
            classes += known or [WILDCARD]
        elif character.isalnum() or unicodedata.category(character)[0] == "S" or character in "%&@#":
            classes.append(WILDCARD)
    return classes if any(value != symbols.find("'") + 1 for value in classes) else []


def romanised(text: str) -> str:
    """Any script in ASCII, as one reads it aloud."""
    from anyascii import anyascii

    return anyascii(text)


def labels_of(words: Sequence[Sequence[int]]) -> tuple[list[int], list[tuple[int, int]]]:
    """One row of classes for words as `spell` gives them, with a SPACE between two that have letters; and which part of
    the row is each word's: first, one behind the last."""
    labels: list[int] = []
    spans = []
    for letters in words:
        if letters and labels:
            labels.append(SPACE)
        spans.append((len(labels), len(labels) + len(letters)))
        labels += letters
    return labels, spans
