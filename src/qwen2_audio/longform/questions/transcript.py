"""A recording asked about as text: transcribed once, then read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...audio.limits import Limits
from ...errors import AudioError
from ...types import Heard, Part
from ..asking import Task
from ..transcribe import Finished, Listening, transcribe
from . import wording
from .asker import Asker, EndedError
from .recordings import Recording
from .transcript_store import Spoken, TranscriptStore, content_key

_BLOCK = 600.0  # s of text that is asked about together


def spoken_parts(asker: Asker, recording: Recording, store: TranscriptStore, limits: Limits) -> Iterator[Part | Spoken]:
    """What is said in a recording, segment by segment, then all of it; from `store` where it is there.

    Raises AudioError, with the clip's number, where the recording cannot be read.
    """
    key = content_key(recording.source)
    if (known := store.get(key)) is not None:
        yield from known.parts
        yield known
        return
    listening = Listening(limits=limits)
    sources = [(recording.source, recording.name)]
    for event in transcribe(asker, sources, Task(), asker.model.transcription, listening):
        if not isinstance(event, Finished):
            segments = event.segments
            yield from (Part(part.start, part.end, part.text) for part in segments if part.text)
            continue
        if isinstance(event.error, TimeoutError):
            raise EndedError("deadline" if str(event.error) == "deadline" else "cancelled")
        if isinstance(event.error, AudioError):
            event.error.clip = recording.number
        if event.error is not None:
            raise event.error
        talk = event.transcript
        parts = tuple(Part(part.start, part.end, part.text) for part in talk.segments if part.text)
        skipped = sum(end - start for start, end in talk.skipped)
        spoken = Spoken(talk.seconds, talk.seconds - skipped, parts, talk.notes, len(talk.segments))
        store.put(key, spoken)
        yield spoken


def blocks_of(parts: Sequence[Part]) -> list[list[Part]]:
    """Segments in order, in blocks of ten minutes."""
    blocks: list[list[Part]] = []
    for part in parts:
        if not blocks or part.end - blocks[-1][0].start > _BLOCK:
            blocks.append([])
        blocks[-1].append(part)
    return blocks


def heard_of(spoken: Spoken, sentence: str) -> Heard:
    """What was heard of a recording that is asked about as text: no audio token is in the prompt of the question."""
    return Heard(spoken.heard, 0, (*spoken.notes, sentence), "transcript", spoken.windows)


def spoken_text(spoken: Spoken, parts: Sequence[Part]) -> str:
    """A transcript, or a block of it, as it stands in a prompt."""
    length = wording.clock(spoken.seconds)
    if len(parts) == len(spoken.parts):
        head = wording.TRANSCRIPT_HEAD.format(length=length)
    else:
        start, end = wording.clock(parts[0].start), wording.clock(parts[-1].end)
        head = wording.BLOCK_HEAD.format(start=start, end=end, length=length)
    return head + wording.note_lines(parts) + "\n"
