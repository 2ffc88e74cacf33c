"""The clips of a conversation that last longer than a window, and the conversation with other parts in their place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import IO, Any

from ...audio.fetch import fetch
from ...audio.io import SAMPLE_RATE, SoundStream, name_of
from ...audio.limits import Deadline, Limits
from ...audio.mel import WINDOW_SAMPLES, WINDOW_TOLERANCE
from ...errors import AudioError
from ...inputs.clip import AudioClip, load_clip
from ...text.chat_template import is_clip, source_of, without_nones
from ...types import Heard, Message

_LONGEST = WINDOW_SAMPLES + round(WINDOW_TOLERANCE * SAMPLE_RATE)  # samples of a clip that is heard at once
_FETCH_SECONDS = 300.0  # for a link to arrive


@dataclass(frozen=True)
class Recording:
    """A clip that lasts longer than a window."""

    number: int  # among the clips of the conversation, from 1
    message: int  # index
    part: int  # index in the message's content
    source: Any  # what `audio.io.load` takes; it can be read any number of times
    name: str
    seconds: float | None  # by its header, or None

    @property
    def called(self) -> str:
        """As a message begins with it."""
        number = f"Clip {self.number}"
        return number if self.name == number else f"{number} ({self.name})"


@dataclass(eq=False)
class Conversation:
    """Messages and their clips. Where `clips` are loaded, they are `(samples, rate)` in the messages.

    `close` it, unless `recordings` is empty.
    """

    messages: list[Message]
    clips: dict[int, AudioClip] = field(default_factory=dict)  # short ones, by their number
    recordings: list[Recording] = field(default_factory=list)
    _files: ExitStack = field(default_factory=ExitStack)

    def close(self) -> None:
        """Remove the temporary files of links and pipes."""
        self._files.close()

    def replaced(self, contents: dict[int, list[dict[str, Any]]], then: str = "") -> list[Message]:
        """The messages with parts in the place of recordings, by number, and a text behind the last message."""
        messages: list[Message] = []
        for index, message in enumerate(self.messages):
            if isinstance(message["content"], str):
                messages.append(message)
                continue
            content: list[dict[str, Any]] = []
            for number, part in enumerate(message["content"]):
                found = next((r for r in self.recordings if (r.message, r.part) == (index, number)), None)
                content += [part] if found is None else contents[found.number]
            # Without the type of a whole message: "audio" would make clips of its texts.
            messages.append({key: value for key, value in message.items() if key != "type"} | {"content": content})
        if then:
            last = messages[-1]["content"]
            content = [text_part(last)] if isinstance(last, str) else list(last)
            messages[-1] = {**messages[-1], "content": [*content, text_part(then)]}
        return messages

    def heard(self, recordings: dict[int, Heard]) -> tuple[Heard, ...]:
        """Of all clips, in order; those of recordings are given by their numbers."""
        by_number = {number: clip.heard for number, clip in self.clips.items()} | recordings
        return tuple(by_number[number] for number in sorted(by_number))


def text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def clip_part(source: Any) -> dict[str, Any]:
    return {"type": "audio", "audio": source}


def read_conversation(messages: Sequence[Message], limits: Limits, *, load: bool = False) -> Conversation | None:
    """Look at each clip for as long as it takes to know whether it is long.

    Where one is, or with `load`, all others are loaded; else the messages keep their clips, but links and pipes, which
    are read, become bytes. None: the messages are malformed, which whoever answers them says best. Raises AudioError
    for a clip that cannot be loaded, or a link that cannot be fetched.
    """
    if isinstance(messages, str) or not isinstance(messages, Sequence) or not all(map(_is_message, messages)):
        return None
    found = Conversation([_copy(message) for message in without_nones(messages)])
    places = [
        (index, place)
        for index, message in enumerate(found.messages)
        for place, part in enumerate(message["content"])
        if isinstance(part, dict) and is_clip(message, part) and source_of(part) is not None
    ]
    try:
        for number, (index, place) in enumerate(places, 1):
            given = source_of(found.messages[index]["content"][place])
            source = _again_and_again(given, limits, found._files.enter_context)
            seconds = seconds_of_long(source, limits)
            if seconds is not None:
                name = name_of(given) or f"Clip {number}"
                known = seconds if math.isfinite(seconds) else None
                found.recordings.append(Recording(number, index, place, source, name, known))
            if seconds is None and source is not given and not isinstance(source, bytes):
                source.seek(0)
                source = source.read()
            if source is not given:
                found.messages[index]["content"][place] = clip_part(source)
        if found.recordings or load:
            for number, (index, place) in enumerate(places, 1):
                if all(recording.number != number for recording in found.recordings):
                    content = found.messages[index]["content"]
                    found.clips[number] = load_clip(source_of(content[place]), number)
                    content[place] = clip_part((found.clips[number].waveform, SAMPLE_RATE))
    except BaseException:
        found.close()
        raise
    if not found.recordings:
        found.close()
    return found


def _is_message(message: Any) -> bool:
    if not isinstance(message, dict) or not isinstance(message.get("content"), str | list | tuple):
        return False
    return isinstance(message["content"], str) or all(isinstance(part, dict) for part in message["content"])


def _copy(message: Message) -> Message:
    content = message["content"]
    return {**message, "content": content if isinstance(content, str) else list(content)}


def seconds_of_long(source: Any, limits: Limits) -> float | None:
    """How long a clip of more than a window is by its header, infinite where that does not say; None for others, and
    for those that cannot be read, which `load_clip` says."""
    stream, samples = SoundStream(source, limits=limits), 0
    blocks = stream.blocks()
    try:
        for (block,) in blocks:
            samples += len(block)
            if samples > _LONGEST:
                return math.inf if stream.seconds is None else stream.seconds
    except AudioError:
        pass
    finally:
        blocks.close()
    return None


def _again_and_again(source: Any, limits: Limits, keep: Callable[[IO[bytes]], Any]) -> Any:
    """A source that can be read more than once: links are fetched, and pipes read to their end."""
    if isinstance(source, str) and source[:8].lower().startswith(("http://", "https://")):
        return keep(fetch(source, limits, Deadline(_FETCH_SECONDS)))
    if hasattr(source, "read") and not getattr(source, "seekable", lambda: False)():
        data = source.read()
        limits.check_bytes(len(data), name_of(source) or "The file object")
        return data
    return source
