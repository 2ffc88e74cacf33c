"""Make the messages of a conversation, and check that the model gets every text and clip in them."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

from ..errors import PromptError, did_you_mean
from ..text import chat_template as chat
from ..types import Message

ROLES = ("system", "user", "assistant")
MESSAGE_KEYS = ("role", "content", "type")
PART_KEYS = ("type", "text", *chat.SOURCE_KEYS)


def user(text: str | None = None, audio: Any = None) -> Message:
    """A message of the user: its clips, then its text. Without text, the model answers the clips (voice chat).

    Args:
        text: what the user writes.
        audio: a clip in any form that `qwen2_audio.audio.load` reads (path, bytes, URL, data: URI, `(array, rate)`, an
            array at 16 kHz), or a list of clips.

    Raises:
        PromptError: neither text nor audio, an empty list, or text that is not a string.
    """
    clips = _clips(audio)
    if text is None and not clips:
        raise PromptError("user() got neither text nor audio; pass at least one of them.")
    if text is not None:
        _check_text(text, "user")
        if not clips:
            return {"role": "user", "content": text}
    parts: list[dict[str, Any]] = [{"type": "audio", "audio": clip} for clip in clips]
    return {"role": "user", "content": parts + ([] if text is None else [{"type": "text", "text": text}])}


def system(text: str) -> Message:
    """A system prompt. A conversation without one gets "You are a helpful assistant."."""
    _check_text(text, "system")
    return {"role": "system", "content": text}


def assistant(text: str) -> Message:
    """An earlier answer of the model."""
    _check_text(text, "assistant")
    return {"role": "assistant", "content": text}


def _clips(audio: Any) -> list[Any]:
    if audio is None:
        return []
    if not isinstance(audio, list) or (audio and all(isinstance(item, Real) for item in audio)):
        return [audio]
    if not audio:
        raise PromptError("audio is an empty list; leave it out, or give at least one clip.")
    if any(clip is None for clip in audio):
        raise PromptError(f"Clip {audio.index(None) + 1} of audio is None; the model would not hear it.")
    return list(audio)


def _check_text(text: object, where: str) -> None:
    if not isinstance(text, str):
        raise PromptError(
            f"{where}() got a {type(text).__name__} as text; expected a string. A clip goes into audio=."
            if where == "user"
            else f"{where}() got a {type(text).__name__} as text; expected a string."
        )


def check_messages(messages: Sequence[Message]) -> list[Any]:
    """The source of each clip of a conversation, in order.

    Raises PromptError for malformed messages, and for content that the model would silently not get.
    """
    sources = chat.audio_sources(messages)
    for index, message in enumerate(messages, 1):
        if message["role"] not in ROLES:
            role = message["role"]
            raise PromptError(
                f"Message {index} has the role {role!r}; expected one of {', '.join(ROLES)}.{did_you_mean(role, ROLES)}"
            )
        _refuse_unknown_keys(message, MESSAGE_KEYS, f"Message {index}")
        if not isinstance(message["content"], str):
            for number, part in enumerate(message["content"], 1):
                _check_part(part, f"Message {index}, part {number}")
    return sources


def _check_part(part: dict[str, Any], where: str) -> None:
    _refuse_unknown_keys(part, PART_KEYS, where)
    sources = [key for key in chat.SOURCE_KEYS if part.get(key) is not None]
    if len(sources) > 1:
        raise PromptError(f"{where} names its sound twice, under {' and '.join(sources)}; give one.")
    if sources and "text" in part:
        raise PromptError(f"{where} holds both a clip and text; make two parts of it.")


def _refuse_unknown_keys(entry: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in entry:
        if key not in known:
            raise PromptError(
                f"{where} has the key {key!r}, which nothing here reads; expected {', '.join(known)}."
                f"{did_you_mean(str(key), known)}"
            )
