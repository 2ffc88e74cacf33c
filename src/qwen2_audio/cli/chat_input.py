"""A line typed into `qwen2-audio chat`, understood: a command, or clips and text."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from ..errors import AudioError, PromptError, did_you_mean

COMMANDS = {
    "/rec": "[SECONDS] record from the microphone (5 s), and send it",
    "/new": "start a new conversation",
    "/help": "show this",
    "/quit": "leave; end of file does too",
}
RECORD_SECONDS = 5.0
SOUND_SUFFIXES = (
    ".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".webm", ".m4a", ".mp4", ".aac", ".aiff", ".wma", ".amr",
)  # fmt: skip

# The first word of a line: in quotes, or with its blanks escaped, as a shell completes them.
_WORD = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|((?:\\.|[^\s\\])+))""")


@dataclass(frozen=True)
class Order:
    """A command with its argument."""

    name: str
    argument: str = ""


@dataclass(frozen=True)
class Turn:
    """Something to say to the model."""

    text: str | None = None
    clips: tuple[str, ...] = ()


def parse(line: str) -> Order | Turn | None:
    """Clips first, then text: `dog.flac cat.wav Which of them is larger?`; None for an empty line.

    Raises PromptError for an unknown command, AudioError for what looks like a sound file but is not there.
    """
    line = line.strip()
    if not line:
        return None
    word, _, argument = line.partition(" ")
    if word in COMMANDS:
        return Order(word, argument.strip())
    if os.path.isfile(line):
        return Turn(clips=(line,))
    clips, text = _leading_clips(line)
    if line.startswith("/") and not clips:
        raise PromptError(f"There is no command and no file {word!r}.{did_you_mean(word, list(COMMANDS))} See /help.")
    return Turn(text or None, tuple(clips))


def _leading_clips(line: str) -> tuple[list[str], str]:
    clips: list[str] = []
    while found := _WORD.match(line):
        word = found[1] or found[2] or re.sub(r"\\(.)", r"\1", found[3] or "")
        path = os.path.expanduser(word)
        if os.path.isfile(path):
            clips.append(path)
        elif re.match(r"https?://", word):
            clips.append(word)
        elif word.lower().endswith(SOUND_SUFFIXES):
            raise AudioError(f"No such file: {word!r}. Give a path from {os.getcwd()}, or write it within a sentence.")
        else:
            break
        line = line[found.end() :]
    return clips, line.strip()


def unheard_files(text: str | None) -> list[str]:
    """Words inside the text that name sound files: they are read as text, which its writer may not expect."""
    words = (word.strip("\"'.,;:?!()") for word in (text or "").split())
    return [word for word in words if word.lower().endswith(SOUND_SUFFIXES) and os.path.isfile(word)]


def seconds_of(argument: str) -> float:
    """The argument of /rec. Raises PromptError for anything but a length the model can hear."""
    try:
        seconds = float(argument) if argument else RECORD_SECONDS
    except ValueError:
        seconds = -1.0
    if not 0.1 <= seconds <= 30:
        raise PromptError(f"/rec got {argument!r}; expected seconds between 0.1 and 30, such as /rec 5.")
    return seconds
