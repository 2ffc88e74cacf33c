"""`m.transcribe` and `m.translate`: one sound or several to transcripts."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Real
from pathlib import Path
from typing import Any

from ..audio.io import name_of
from ..errors import ConfigError
from ..longform.asking import Task
from ..longform.speakers import Speakers
from ..longform.transcribe import Finished, Listening, Progress, transcribe
from ..longform.transcript import Segment, Transcript
from ..longform.word_times_segments import SegmentTimes
from .service import Service


def run(
    service: Service,
    audio: Any,
    task: Task,
    listening: Listening,
    *,
    stream: bool,
    words: bool = False,
    speakers: str | Path | None = None,
) -> Any:
    """A Transcript of one sound, a list of several; with `stream` an iterator over Segments, or over Transcripts."""
    several = isinstance(audio, list) and not (audio and isinstance(audio[0], Real | list))
    sources = audio if several else [audio]
    if not sources:
        raise ConfigError("transcribe() got an empty list; expected a sound, or a list of sounds.")
    named = [(source, name_of(source) or f"Sound {number}") for number, source in enumerate(sources, 1)]
    turns = None
    if speakers is not None:
        known = Speakers.read(speakers)
        turns = [known.turns_of(name, alone=not several) for _, name in named]
    times = SegmentTimes(service.aligner if words else None, turns)
    events = transcribe(service, named, task, service.transcription, listening, times=times)
    if stream:
        return _transcripts(events) if several else _segments(events)
    transcripts = list(_transcripts(events))
    return transcripts if several else transcripts[0]


def _transcripts(events: Iterator[Progress | Finished]) -> Iterator[Transcript]:
    for event in events:
        if isinstance(event, Finished):
            if event.error is not None:
                raise event.error
            yield event.transcript


def _segments(events: Iterator[Progress | Finished]) -> Iterator[Segment]:
    for event in events:
        if isinstance(event, Progress):
            yield from event.segments
        elif event.error is not None:
            raise event.error
