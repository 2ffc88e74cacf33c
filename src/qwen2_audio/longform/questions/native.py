"""Several windows of a recording in one prompt, said to be consecutive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...audio.limits import Limits
from ...audio.mel import SAMPLE_RATE
from ...errors import AudioError
from ...types import Heard, Message
from ..settings import TranscriptionSettings
from . import wording
from .parts import Listener
from .policy import MOST_NATIVE_WINDOWS, Policy
from .recordings import Conversation, Recording, clip_part, text_part


def native_messages(
    conversation: Conversation, settings: TranscriptionSettings, limits: Limits, most: int
) -> tuple[list[Message], dict[int, Heard]]:
    """The conversation with its recordings as windows, at most `most` of all together; and what is heard of each
    recording, but for its tokens.

    Raises AudioError for more.
    """
    contents, heard = dict[int, list[dict[str, Any]]](), dict[int, Heard]()
    count, left = 0, most
    places = {recording.number: recording for recording in conversation.recordings}
    for number in sorted({*places, *conversation.clips}):
        if number not in places:
            count += 1
            continue
        listener = Listener(places[number], settings, limits, plain=True)
        windows = list[dict[str, Any]]()
        for window in listener.windows():
            if len(windows) == left:
                raise _too_long(places[number], most)
            windows.append(clip_part((window.samples, SAMPLE_RATE)))
        left -= len(windows)
        length = wording.clock(listener.seconds)
        sentence = wording.CONSECUTIVE.format(first=count + 1, last=count + len(windows), length=length)
        contents[number] = [*windows, text_part(sentence)]
        count += len(windows)
        note = f"It was heard in {len(windows)} windows of one prompt."
        seconds = listener.samples / SAMPLE_RATE
        heard[number] = Heard(seconds, 0, (*listener.notes, note), "native", len(windows))
    return conversation.replaced(contents), heard


def with_tokens(recordings: dict[int, Heard], clips: Sequence[Heard], conversation: Conversation) -> dict[int, Heard]:
    """What is heard of recordings, with the tokens of their windows, which `clips` has among all clips in order."""
    heard, whole = iter(clips), dict[int, Heard]()
    for number in sorted({*recordings, *conversation.clips}):
        if number in recordings:
            tokens = sum(next(heard).tokens for _ in range(recordings[number].parts))
            whole[number] = replace(recordings[number], tokens=tokens)
        else:
            next(heard)
    return whole


def _too_long(recording: Recording, most: int) -> AudioError:
    value = Policy("native", most).value
    length = "" if recording.seconds is None else f" lasts {wording.clock(recording.seconds)}, which"
    more = f"native:{MOST_NATIVE_WINDOWS} takes {MOST_NATIVE_WINDOWS}, " if most < MOST_NATIVE_WINDOWS else ""
    return AudioError(
        f"{recording.called}{length} is more than the {most} windows of at most 30 s that long={value} puts into one "
        f"prompt; {more}parts and transcript take any length.",
        clip=recording.number,
    )
