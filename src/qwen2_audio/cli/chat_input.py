"""Parse a line of `qwen2-audio chat`: a command, or clips and text."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from ..audio.limits import LONGEST_PATH
from ..errors import AudioError, PromptError, did_you_mean

COMMANDS = {
    "/rec": "[SECONDS] record from the microphone (5 s), and send it",
    "/new": "start a new conversation",
    "/parts": "what was heard in each part of the last clip of more than 30 s",
    "/help": "show this",
    "/quit": "leave; end of file does too",
}
RECORD_SECONDS = 5.0
SOUND_SUFFIXES = (  # of the files that the decoder reads
    ".sph", ".nist", ".wv", ".voc", ".ts", ".m2ts", ".avi", ".flv", ".tta", ".ape", ".ac3", ".8svx", ".ircam",
    ".wav", ".w64", ".rf64", ".flac", ".mp3", ".mp2", ".mpa", ".m2a", ".ogg", ".oga", ".ogv", ".opus", ".spx",
    ".webm", ".weba", ".mka", ".mkv", ".mk3d", ".mov", ".qt", ".mp4", ".m4a", ".m4b", ".m4v", ".f4v", ".psp", ".3gp",
    ".3g2", ".mj2", ".ism", ".isma", ".ismv", ".aac", ".aif", ".aiff", ".aifc", ".afc", ".au", ".snd", ".caf", ".amr",
    ".asf", ".wma", ".wmv",
)  # fmt: skip

# The first word of a line: in quotes, or with escaped spaces, as a shell's completion writes them.
_WORD = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|((?:\\.|[^\s\\])+))""")


@dataclass(frozen=True)
class ChatCommand:
    """A command, such as "/rec", with its argument."""

    name: str
    argument: str = ""


@dataclass(frozen=True)
class Turn:
    """A message of the user."""

    text: str | None = None
    clips: tuple[str, ...] = ()  # paths and URLs


def parse(line: str) -> ChatCommand | Turn | None:
    """Parse a command, or clips followed by text: `dog.flac cat.wav Which of them is larger?`; None for an empty line.

    Raises PromptError for an unknown command, AudioError for the name of a sound file that does not exist.
    """
    line = line.strip()
    if not line:
        return None
    word, _, argument = line.partition(" ")
    if word in COMMANDS:
        return ChatCommand(word, argument.strip())
    if os.path.isfile(line):
        return Turn(clips=(line,))
    clips, text = _leading_clips(line)
    if line.startswith("/") and not clips:
        raise PromptError(f"There is no command and no file {word!r}.{did_you_mean(word, list(COMMANDS))} See /help.")
    return Turn(text or None, tuple(clips))


def _leading_clips(line: str) -> tuple[list[str], str]:
    clips: list[str] = []
    while match := _WORD.match(line):
        word = match[1] or match[2] or re.sub(r"\\(.)", r"\1", match[3] or "")
        path, end = os.path.expanduser(word), match.end()
        if os.path.isfile(path):
            clips.append(path)
        elif re.match(r"(https?|file)://", word, re.IGNORECASE):
            clips.append(word)
        elif end_of_path := _end_of_path_with_spaces(line):
            clips.append(os.path.expanduser(line[:end_of_path].lstrip()))
            end = end_of_path
        elif word.lower().endswith(SOUND_SUFFIXES):
            raise AudioError(f"No such file: {word!r}. Give a path from {os.getcwd()}, or write it within a sentence.")
        else:
            break
        line = line[end:]
    return clips, line.strip()


def _end_of_path_with_spaces(line: str) -> int:
    """The end of an existing sound file's path at the start of `line`, with unquoted spaces; 0 without one."""
    for word in re.finditer(r"\S+", line[:LONGEST_PATH]):
        path = os.path.expanduser(line[: word.end()].lstrip())
        if word[0].lower().endswith(SOUND_SUFFIXES) and os.path.isfile(path):
            return word.end()
    return 0


def unheard_files(turn: Turn) -> list[str]:
    """Words of the text that look like sound files, which the model does not hear. With clips, only existing files."""
    words = (word.strip("\"'.,;:?!()") for word in (turn.text or "").split())
    file_names = [word for word in words if word.lower().endswith(SOUND_SUFFIXES)]
    return [name for name in file_names if not turn.clips or os.path.isfile(name)]


def seconds_of(argument: str) -> float:
    """The argument of /rec in seconds. Raises PromptError unless it is between 0.1 and 30."""
    try:
        seconds = float(argument) if argument else RECORD_SECONDS
    except ValueError:
        seconds = -1.0
    if not 0.1 <= seconds <= 30:
        raise PromptError(f"/rec got {argument!r}; expected seconds between 0.1 and 30, such as /rec 5.")
    return seconds
