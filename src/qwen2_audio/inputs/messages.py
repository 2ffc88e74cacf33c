"""Make the messages of a conversation, and check that the model gets every text and clip in them."""

from __future__ import annotations

from numbers import Real
from typing import Any

from ..errors import PromptError
from ..types import Message


def user(text: str | None = None, audio: Any = None) -> Message:
    """A message of the user: its clips, then its text. Without text, the model answers the clips (voice chat).

    Args:
        text: what the user writes.
        audio: a clip in any form that `qwen2_audio.audio.load` reads (path, bytes, URL, data: URI, base64,
            `(array, rate)`, `{"array", "sampling_rate"}`, an array at 16 kHz), or a list of clips.

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
