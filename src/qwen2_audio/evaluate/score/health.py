"""Signs that a run went wrong, whatever its score: answers cut short, empty, in loops, or in another language."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

from ..example import Prediction
from ..normalize.official import TAG
from .echoes import has_echo

LOOP_CHARACTERS, LOOP_ROUNDS = 32, 3.5  # a text that ends in so many rounds of one piece, the last of them torn
LONGEST_PERIOD = 60  # characters
CUT = 0.05  # seconds that a clip may be longer than what was heard of it without counting as cut
HAN_LANGUAGES, OTHER_SCRIPTS = ("zh", "yue"), ("ja", "ko", "ar", "ru", "hi", "th", "he", "el", "uk", "fa")


def is_loop(text: str) -> bool:
    """Whether `text` ends in one piece again and again: "and so and so and so ..."."""
    text = text.strip()
    for period in range(1, LONGEST_PERIOD + 1):
        length = max(LOOP_CHARACTERS, int(LOOP_ROUNDS * period))
        if len(text) < length:
            return False
        end = text[-length:]
        if end[period:] == end[:-period]:
            return True
    return False


def is_other_language(text: str, language: str) -> bool:
    """Whether most letters are of a script that `language` is not written in; languages of one script look alike."""
    letters = [character for character in TAG.sub("", text) if character.isalpha()]
    if not letters or language in OTHER_SCRIPTS:
        return False
    script = "CJK" if language in HAN_LANGUAGES else "LATIN"
    fitting = sum(unicodedata.name(letter, "").startswith(script) for letter in letters)
    return 2 * fitting < len(letters)


def health(predictions: Sequence[Prediction], language: str, *, transcribes: bool) -> dict[str, Any]:
    """How many answers, and what share of them, show each sign. Answers that failed are no answers."""
    answers = [prediction for prediction in predictions if prediction.error is None]
    signs = {
        "length_cap": [p.finish_reason == "length" for p in answers],
        "empty": [not p.text.strip() for p in answers],
        "loop": [is_loop(p.text) for p in answers],
        "other_language": [is_other_language(p.text, language) for p in answers],
        "cut_clip": [p.seconds - p.heard > CUT and p.heard > 0 for p in answers],
    }
    if transcribes:
        signs["prefix_echo"] = [has_echo(p.text) for p in answers]
    return {
        "answers": len(answers),
        **{
            name: {"n": sum(found), "share": round(sum(found) / max(len(found), 1), 6)} for name, found in signs.items()
        },
    }
