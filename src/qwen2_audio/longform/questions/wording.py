"""What is asked about parts, notes and transcripts, and which answers say that a part does not hold the answer."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ...types import Part

if TYPE_CHECKING:
    from ..settings import TranscriptionSettings

PART = (
    "\nThis is the part from {start} to {end} of a longer recording. Answer from this part alone. "
    "If it does not hold the answer, say: Nothing."
)
BLOCK_HEAD = "What is said from {start} to {end} of a recording of {length}:\n"
NOTES_HEAD = "Notes on a recording of {length}. Each is on one part of it, which was heard alone:\n"
NOTES_TAIL = "\nAnswer from these notes."
TRANSCRIPT_HEAD = "What is said in a recording of {length}:\n"
CONSECUTIVE = "Audio {first} to Audio {last} are consecutive parts of one recording of {length}.\n"
NOWHERE = "None of the {count} parts of the recording holds an answer."
NOBODY = "Nobody speaks in the recording, so that its transcript holds no answer."
TRANSCRIBED = "It was transcribed; the answer is made from its transcript, as text."
AS_IT_IS = "It was transcribed; the answer is its transcript, as this checkpoint does not answer from text."
_NOTHING = "nothing"


def clock(seconds: float) -> str:
    """As 0:07, 12:30 or 1:02:03."""
    whole = round(seconds)
    minutes = f"{whole // 60 % 60:02}:{whole % 60:02}"
    return f"{whole // 3600}:{minutes}" if whole >= 3600 else f"{whole // 60}:{whole % 60:02}"


def part_sentence(settings: TranscriptionSettings, start: float, end: float) -> str:
    """What follows the question that is put to a part alone."""
    wording = PART if settings.part is None else settings.part
    return wording.format(start=clock(start), end=clock(end))


def says_nothing(answer: str, settings: TranscriptionSettings) -> bool:
    """Whether an answer says that its part does not hold what was asked for."""
    said = _plain(answer)
    known = (*settings.no_answer, *settings.no_speech)
    return said in ("", _NOTHING) or any(said.startswith(_plain(sentence)) for sentence in known)


def note_line(part: Part) -> str:
    """A note with its time, on one line."""
    return f"[{clock(part.start)}-{clock(part.end)}] {' '.join(part.text.split())}\n"


def note_lines(parts: Iterable[Part]) -> str:
    return "".join(map(note_line, parts))


def heard_sentence(count: int, used: int, levels: int) -> str:
    """What an answer by parts was made of, for `Heard.notes`; `levels` 0: the notes were not combined."""
    heard = f"It was heard in {count} parts, each alone"
    if used == 0:
        return f"{heard}; none of them holds an answer."
    if levels == 0:
        one = "the answer is that of the one which holds it"
        return f"{heard}; {one if used == 1 else f'the answer lists what {used} of them say, not combined'}."
    return f"{heard}; the answer is made from notes on {used} of them, as text{in_levels(levels)}."


def block_sentence(count: int, used: int, levels: int) -> str:
    """What an answer about blocks of a transcript was made of."""
    made = f"the answer is made from what {used} of {count} blocks of its text say{in_levels(levels)}"
    return f"It was transcribed; {made}."


def in_levels(levels: int) -> str:
    return f", in {levels} levels" if levels > 1 else ""


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s]", " ", text.casefold()).split())
