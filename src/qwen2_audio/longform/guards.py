"""Why a transcript may be wrong: pure functions, each of which gives its flag's name or nothing.

None of them changes a text. `HARD` flags are worth asking again for.
"""

from __future__ import annotations

import re
import zlib

from ..types import FinishReason
from .transcript import UNSPACED

HARD = frozenset({"repetition", "length", "echo", "rate"})
_TIMES = 4  # that a pattern stands at the end of a text, until it is a loop
_LONGEST_WORDS, _LONGEST_CHARACTERS = 8, 12  # of a pattern
_RATIO, _RATIO_TOKENS = 2.4, 20  # of compression, Whisper's; short texts do not compress
_MOST_WORDS, _MOST_CHARACTERS = 9.0, 15.0  # a second; nobody speaks faster
_FEWEST_WORDS = 12  # of a text whose rate says something
_SHORTEST_ECHO = 12  # characters of a prompt that nobody says by chance
_QUIET = 1e-4  # -80 dBFS
_CHARACTER = re.compile(f"[{UNSPACED}]")


def flags_of(
    text: str,
    *,
    seconds: float,
    tokens: int,
    finish_reason: FinishReason,
    asked: tuple[str, ...] = (),
    confidence: float | None = None,
    min_confidence: float | None = None,
) -> tuple[str, ...]:
    """All flags of an answer, in a fixed order."""
    found = {
        "repetition": repetition(text, tokens),
        "length": finish_reason in ("length", "context"),
        "echo": any(echo(text, prompt) for prompt in asked),
        "rate": rate(text, seconds),
        "low_confidence": confidence is not None and min_confidence is not None and confidence < min_confidence,
    }
    return tuple(name for name, is_so in found.items() if is_so)


def silence(peak: float) -> bool:
    """Whether a window with this loudest sample holds no sound, so that it is not sent to the model."""
    return peak < _QUIET


def repetition(text: str, tokens: int) -> bool:
    """Whether a text ends in a loop of 1 to 8 words (1 to 12 characters of a script without blanks), or compresses
    like one."""
    if _loops(text.lower().split(), _LONGEST_WORDS):
        return True
    characters = _CHARACTER.findall(text)
    if len(characters) > len(text) // 2 and _loops(characters, _LONGEST_CHARACTERS):
        return True
    data = text.encode()
    return tokens > _RATIO_TOKENS and len(data) / len(zlib.compress(data)) > _RATIO


def _loops(units: list[str], longest: int) -> bool:
    for size in range(1, min(longest, len(units) // _TIMES) + 1):
        if units[-size:] * _TIMES == units[-size * _TIMES :]:
            return True
    return False


def echo(text: str, prompt: str) -> bool:
    """Whether a text holds what was asked."""
    said, asked = _plain(text), _plain(prompt)
    return len(asked) >= _SHORTEST_ECHO and asked in said


def refusal(text: str, no_speech: tuple[str, ...]) -> bool:
    """Whether a text begins as one that the checkpoint says instead of a transcript where nobody speaks."""
    said = _plain(text)
    return any(said.startswith(_plain(sentence)) for sentence in no_speech)


def rate(text: str, seconds: float) -> bool:
    """Whether there is more text than somebody can say in this time."""
    characters = len(_CHARACTER.findall(text))
    words = len(_CHARACTER.sub(" ", text).split())
    long_enough = words + characters / 2 >= _FEWEST_WORDS
    return long_enough and (words > _MOST_WORDS * seconds or characters > _MOST_CHARACTERS * seconds)


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s]", " ", text.casefold()).split())
