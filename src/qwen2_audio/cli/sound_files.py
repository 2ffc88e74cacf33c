"""Which sounds a command line names, and where their transcripts go."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import ConfigError

# Files of a folder that are sounds, or films with sound. Files that are named one by one may end in anything.
ENDINGS = frozenset({
    ".3gp", ".aac", ".ac3", ".aif", ".aiff", ".amr", ".au", ".avi", ".caf", ".flac", ".m4a", ".m4b", ".mka", ".mkv",
    ".mov", ".mp2", ".mp3", ".mp4", ".mpeg", ".mpg", ".mts", ".oga", ".ogg", ".ogv", ".opus", ".ts", ".wav", ".webm",
    ".wma", ".wv",
})  # fmt: skip
_URL = re.compile(r"(https?|file)://|data:", re.IGNORECASE)


@dataclass(frozen=True)
class Sound:
    """One sound of the command line."""

    source: Any  # what `audio.io.load` takes
    name: str  # for messages
    stem: str  # of the files that are written about it


def sounds_of(arguments: Sequence[str]) -> list[Sound]:
    """The sounds that arguments name, those of folders in the order of their names.

    Raises ConfigError where there is none: a folder without sounds, or only files that do not exist.
    """
    names: list[str] = []
    for argument in arguments:
        if argument != "-" and not _URL.match(argument) and os.path.isdir(argument):
            found = sorted(str(path) for path in Path(argument).rglob("*") if _is_sound(path))
            if not found:
                raise ConfigError(f"{argument} holds no file that ends as a sound does, such as .wav, .mp3 or .mp4.")
            names += found
        else:
            names.append(argument)
    if names.count("-") > 1:
        raise ConfigError("- is given twice, and stdin is read once; leave one out.")
    missing = [name for name in names if name != "-" and not _URL.match(name) and not os.path.exists(name)]
    if len(missing) == len(names):
        raise ConfigError(f"No such file: {missing[0]!r}.")
    plain = [_stem(name) for name in names]
    count = Counter(stem.lower() for stem, _ in plain)
    stems = [stem if count[stem.lower()] == 1 else f"{stem}{ending}" for stem, ending in plain]
    twice = [stem for stem, times in Counter(stems).items() if times > 1]
    if twice:
        stems = [f"{stem}-{number}" if stem in twice else stem for number, stem in enumerate(stems, 1)]
    sources = [sys.stdin.buffer if name == "-" else name for name in names]
    labels = ["stdin" if name == "-" else name for name in names]
    return [Sound(*each) for each in zip(sources, labels, stems, strict=True)]


def _is_sound(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".") and path.is_file()


def _stem(name: str) -> tuple[str, str]:
    """A file's name without its ending, and the ending."""
    if name == "-":
        return "stdin", ""
    if _URL.match(name):
        name = "sound" if name[:5].lower() == "data:" else unquote(urlsplit(name).path.rstrip("/")) or "sound"
    path = Path(Path(name).name)
    return path.stem or "sound", path.suffix


def seconds_of(text: str | None, option: str) -> float | None:
    """Seconds of a time as 90, 1:30 or 1:02:03.5. Raises ConfigError, with the option's name, for any other text."""
    if text is None:
        return None
    if not re.fullmatch(r"(\d+:)?([0-5]?\d:)?\d+(\.\d*)?", text.strip()):
        raise ConfigError(f"{option} is {text!r}; expected seconds, or a time such as 1:30 or 1:02:03.5.")
    seconds = 0.0
    for part in text.split(":"):
        seconds = 60 * seconds + float(part)
    return seconds
