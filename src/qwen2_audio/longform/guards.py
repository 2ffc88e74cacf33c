"""Why a transcript may be wrong: pure functions, each of which gives its flag's name or nothing.

None of them changes a text. `HARD` flags are worth asking again for.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ..types import FinishReason
from .text_language import language_of_text
from .transcript import UNSPACED, Segment

ORDER = ("silence", "repetition", "length", "echo", "refusal", "rate", "language", "low_confidence")
HARD = frozenset({"repetition", "length", "echo", "rate"})
_TIMES = 4  # that a pattern stands at the end of a text, until it is a loop
_LONGEST_WORDS, _LONGEST_CHARACTERS = 8, 12  # of a pattern
_RATIO, _RATIO_TOKENS = 2.4, 20  # of compression, Whisper's; short texts do not compress
_MOST_WORDS, _MOST_CHARACTERS = 9.0, 15.0  # a second; nobody speaks faster
_FEWEST_WORDS = 12  # of a text whose rate says something
_SHORTEST_ECHO = 12  # characters of a prompt that nobody says by chance
_QUIET = 1e-4  # -80 dBFS
_FEWEST_TO_TELL = 5  # words of a text whose language is believed, where it is told by words and not by its script
_MAJORITY = 0.9  # of a sound's seconds in one language, for the others to be doubtful
# A language -> those that a short text in it may be taken for: without kana, without the letters of its own, or alike.
_TAKEN_FOR = {"ja": ("zh", "yue"), "yue": ("zh",), "uk": ("ru",), "id": ("ms",), "ms": ("id",)}
_CHARACTER = re.compile(f"[{UNSPACED}]")


def flags_of(
    text: str,
    *,
    seconds: float,
    tokens: int,
    finish_reason: FinishReason,
    asked: tuple[str, ...] = (),
    refused: bool = False,
    expected: str | None = None,
) -> tuple[str, ...]:
    """The flags of an answer that its text, its end and what was asked tell, in the order of ORDER.

    `text` is the transcript, "" where the checkpoint `refused`; `expected`: the code of the language that it should be
    in, None where that is not known.
    """
    found = {
        "repetition": repetition(text, tokens),
        "length": finish_reason in ("length", "context"),
        "echo": any(echo(text, prompt) for prompt in asked),
        "refusal": refused,
        "rate": rate(text, seconds),
        "language": expected is not None and other_language(language_of_text(text), expected, text),
    }
    return tuple(name for name, is_so in found.items() if is_so)


def low_confidence(confidence: float | None, threshold: float | None) -> bool:
    """Whether a confidence is below the checkpoint's threshold; never where there is none: of another model it says
    nothing."""
    return confidence is not None and threshold is not None and confidence < threshold


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


def other_language(language: str | None, expected: str, text: str) -> bool:
    """Whether a text, whose language by itself is `language`, is in another one than expected, and long enough to
    tell."""
    if not text or language is None or language == expected or language in _TAKEN_FOR.get(expected, ()):
        return False
    return len(text.split()) >= _FEWEST_TO_TELL or re.search("[a-z]", text.lower()) is None


def flag_other_languages(segments: Sequence[Segment]) -> list[Segment]:
    """The segments of a sound, with `language` on those in another one than at least 90 % of its seconds with text."""
    seconds = Counter[str]()
    for segment in segments:
        if segment.language is not None and segment.text:
            seconds[segment.language] += round(1000 * (segment.end - segment.start))
    ((most, share),) = seconds.most_common(1) or [("", 0)]
    if share < _MAJORITY * max(seconds.total(), 1):
        return list(segments)
    return [
        with_flag(segment, "language") if other_language(segment.language, most, segment.text) else segment
        for segment in segments
    ]


def with_flag(segment: Segment, flag: str) -> Segment:
    return replace(segment, flags=tuple(sorted({*segment.flags, flag}, key=ORDER.index)))


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s]", " ", text.casefold()).split())
