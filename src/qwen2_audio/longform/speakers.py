"""Who speaks, from a file in RTTM that any diariser writes. There is no diariser here.

A line is `SPEAKER file channel start duration <NA> <NA> name <NA> <NA>`, seconds, fields divided by blanks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from ..errors import ConfigError
from .transcript import Segment, Transcript, Word, join_texts

_FIELDS = 8  # up to the name; the last two may be missing


@dataclass(frozen=True)
class Turn:
    """A span in which somebody speaks, in seconds."""

    start: float
    end: float
    name: str


@dataclass(frozen=True)
class Speakers:
    """The turns of one recording or several, by the names that the file gives them."""

    turns: dict[str, tuple[Turn, ...]]
    path: str

    @classmethod
    def read(cls, path: str | Path) -> Speakers:
        """Raises ConfigError, which names the line, for a file that is missing or is no RTTM."""
        try:
            lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
            raise ConfigError(f"The speakers' file {path} cannot be read: {reason}.") from error
        found: dict[str, list[Turn]] = {}
        for number, line in enumerate(lines, 1):
            fields = line.split()
            if not fields or fields[0].startswith(";") or fields[0].startswith("SPKR-INFO"):
                continue
            if fields[0] != "SPEAKER" or len(fields) < _FIELDS:
                raise ConfigError(
                    f"{path}, line {number} is {line[:60]!r}; expected RTTM: SPEAKER file channel start duration <NA> "
                    "<NA> name <NA> <NA>."
                )
            found.setdefault(fields[1], []).append(_turn(fields, f"{path}, line {number}"))
        if not found:
            raise ConfigError(
                f"{path} names no speaker; expected lines of RTTM, SPEAKER file channel start duration ..."
            )
        return cls({file: tuple(turns) for file, turns in found.items()}, str(path))

    def turns_of(self, name: str, *, alone: bool) -> tuple[Turn, ...]:
        """The turns of a sound by its path or name; those of the only recording where it is `alone`.

        Raises ConfigError where the file has turns of other sounds only.
        """
        stem = "_".join(Path(name).stem.split())
        for file in (Path(name).name, stem):
            if file in self.turns:
                return self.turns[file]
        if alone and len(self.turns) == 1:
            return next(iter(self.turns.values()))
        known = ", ".join(list(self.turns)[:5])
        raise ConfigError(
            f"{self.path} has no speakers of {Path(name).stem!r}; it has those of {known}. Use the sound's name there."
        )


def _turn(fields: Sequence[str], where: str) -> Turn:
    try:
        start, duration = float(fields[3]), float(fields[4])
    except ValueError:
        start = duration = -1.0
    if not (0 <= start < float("inf") and 0 <= duration < float("inf")):
        raise ConfigError(
            f"{where}: start and duration are {fields[3]} and {fields[4]}; expected seconds of 0 or more."
        )
    return Turn(start, start + duration, fields[7])


def label_speakers(segments: Iterable[Segment], turns: Sequence[Turn]) -> list[Segment]:
    """Segments, and words with times, each with the speaker of most of its time; None where nobody's turn is.

    A segment whose words have times is cut where the speaker changes.
    """
    labelled: list[Segment] = []
    for segment in segments:
        if any(word.start is not None for word in segment.words):
            labelled += _by_words(segment, turns)
        else:
            labelled.append(replace(segment, speaker=_longest(segment.start, segment.end, turns)))
    return labelled


def label_transcript(talk: Transcript, speakers: Speakers, *, alone: bool = True) -> Transcript:
    """A transcript with speakers. Raises ConfigError as `Speakers.turns_of`."""
    return replace(talk, segments=tuple(label_speakers(talk.segments, speakers.turns_of(talk.name, alone=alone))))


def _by_words(segment: Segment, turns: Sequence[Turn]) -> list[Segment]:
    names: list[str | None] = []
    for word in segment.words:
        timed = word.start is not None and word.end is not None
        found = _longest(word.start or 0.0, word.end or 0.0, turns) if timed else None
        names.append(found or (names[-1] if names else None))  # between turns a word belongs to the one before
    first = next((name for name in names if name is not None), None)
    named = [replace(word, speaker=name or first) for word, name in zip(segment.words, names, strict=True)]
    groups = [list(group) for _, group in groupby(named, key=lambda word: word.speaker)]
    if len(groups) == 1:
        return [replace(segment, words=tuple(named), speaker=first)]
    return [_part(segment, groups, index) for index in range(len(groups))]


def _part(segment: Segment, groups: Sequence[Sequence[Word]], index: int) -> Segment:
    words = groups[index]
    starts = [word.start for word in words if word.start is not None]
    ends = [word.end for word in words if word.end is not None]
    return replace(
        segment,
        start=segment.start if index == 0 or not starts else starts[0],
        end=segment.end if index + 1 == len(groups) or not ends else ends[-1],
        text=join_texts(["".join(word.text for word in words)]),
        words=tuple(words),
        tokens=tuple(token for word in words for token in word.tokens),
        speaker=words[0].speaker,
    )


def _longest(start: float, end: float, turns: Sequence[Turn]) -> str | None:
    """Who speaks most of the time from `start` to `end`."""
    seconds: dict[str, float] = {}
    for turn in turns:
        overlap = min(end, turn.end) - max(start, turn.start)
        if overlap > 0:
            seconds[turn.name] = seconds.get(turn.name, 0.0) + overlap
    return max(seconds, key=lambda name: seconds[name]) if seconds else None
