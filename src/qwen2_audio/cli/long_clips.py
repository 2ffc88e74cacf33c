"""Questions about clips of more than 30 s, as `ask` and `chat` show them: what is done, and parts as they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..longform.questions.policy import Policy
from ..longform.questions.wording import NOTES_HEAD, clock, note_line, note_lines
from ..types import Chunk, Message, Part
from .sound_progress import SoundProgress
from .terminal import heard_line, note

if TYPE_CHECKING:
    from ..api.chat import AudioChat
    from ..longform.questions.recordings import Conversation

Long = Annotated[
    str,
    typer.Option(
        "--long", help="How a clip of more than 30 s is heard: parts, native, native:9, transcript; or refuse it."
    ),
]
_HOW = {
    "parts": "it is heard in parts of at most 30 s, each alone, and the answer is made from their answers",
    "native": "its windows are heard in one prompt",
    "transcript": "it is transcribed, and its text is asked about",
}


def announce(conversation: Conversation, names: Sequence[str], policy: Policy) -> None:
    """A line on stderr for each clip; `names` are theirs, from the last ones back."""
    numbers = sorted({*conversation.clips, *(recording.number for recording in conversation.recordings)})
    known = dict(zip(reversed(numbers), reversed(names), strict=False))
    for number in sorted(known):
        if number in conversation.clips:
            heard = conversation.clips[number].heard
            note(heard_line(known[number], heard.seconds, heard.tokens))
            continue
        recording = next(recording for recording in conversation.recordings if recording.number == number)
        lasts = "lasts more than is heard at once"
        if recording.seconds is not None:
            lasts = f"lasts {clock(recording.seconds)}, and 30 s are heard at once"
        note(f"{known[number]} {lasts}: {_HOW[policy.kind]} (--long {policy.kind}).")


def without_parts(
    chunks: Iterator[Chunk], conversation: Conversation, policy: Policy, parts: list[Part]
) -> Iterator[Chunk]:
    """The chunks of the answer. Parts go into `parts`, and those that hold an answer to stderr."""
    recording = conversation.recordings[0]
    with SoundProgress() as progress, closing(chunks):  # type: ignore[type-var]
        for chunk in chunks:
            if chunk.part is None:
                progress.pause()
                yield chunk
                continue
            parts.append(chunk.part)
            if chunk.part.used and (chunk.part.level or policy.kind == "parts"):
                progress.pause()
                note(note_line(chunk.part).rstrip("\n"))
            progress.show(recording.name, chunk.part.end, recording.seconds)


def tell_heard(last: Chunk) -> None:
    """What the answer was made of, on stderr."""
    for heard in last.heard:
        if heard.long:
            for sentence in heard.notes:
                note(sentence)


def remembered(question: str | None, parts: Sequence[Part]) -> Message:
    """The turn of a clip that was heard by parts, as later turns have it: notes on it in text, and what was asked."""
    from ..inputs.messages import user

    level = max(part.level for part in parts)
    notes = note_lines(part for part in parts if part.used and part.level == level)
    return user(f"{NOTES_HEAD.format(length=clock(parts[-1].end))}{notes}\n{question or ''}")


def keep_transcripts(chat: AudioChat, adapter: str | None, quantize: str | None) -> None:
    """Have transcripts of this checkpoint kept in the user's cache folder."""
    from .. import __version__
    from ..checkpoint.fingerprint import weights_fingerprint
    from ..checkpoint.hub import resolve
    from ..checkpoint.weights import PATTERNS
    from ..longform.questions.transcript_store import DiskStore, use_store, user_folder

    folders = [resolve(chat.name, PATTERNS, local_files_only=True), *([Path(adapter)] if adapter else [])]
    settings: dict[str, Any] = {
        "dtype": str(chat.dtype), "quantize": quantize, "transcription": repr(chat.transcription),
        "version": __version__,
    }  # fmt: skip
    use_store(chat.service(), DiskStore(user_folder(), weights_fingerprint(folders, settings)))
