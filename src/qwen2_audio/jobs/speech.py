"""The operations `transcribe` and `translate`: sounds of any length, several at a time."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ..datasets.remote import is_remote
from ..datasets.sounds import load_sound
from ..errors import ConfigError
from ..longform.asking import Task
from ..longform.transcribe import LIMITS, Finished, Listening, transcribe
from ..longform.transcript import Transcript
from ..longform.wording import language_of as to_name
from .config import JobConfig
from .reading import sound_of
from .runner import JobRow

if TYPE_CHECKING:
    from ..api.chat import AudioChat

AT_ONCE = 32  # sounds; their windows fill the engine


class Speech:
    """See `operations.Operation`."""

    def __init__(self, chat: AudioChat, config: JobConfig) -> None:
        if config.translate and to_name(config.translate) is None:
            raise ConfigError(f"translate is {config.translate!r}; expected a language, such as 'en'.")
        self._service, self._settings = chat.service(), chat.transcription
        self._task = Task(config.language or None, config.translate or None, config.prompt or None)
        self._listening = Listening(everything=config.everything)
        next(transcribe(self._service, [], self._task, self._settings, self._listening), None)  # is the task possible?
        self._pool = ThreadPoolExecutor(min(AT_ONCE, config.in_flight), thread_name_prefix="qwen2-audio-speech")

    def read(self, item: JobRow) -> Any:
        return source_of(item)

    def submit(self, item: JobRow, read: Any) -> Future[Mapping[str, Any]]:
        return self._pool.submit(self._transcript, read, sound_of(item.row).name)

    def _transcript(self, source: Any, name: str) -> Mapping[str, Any]:
        events = transcribe(self._service, [(source, name)], self._task, self._settings, self._listening)
        *_, end = events
        assert isinstance(end, Finished)
        if end.error is not None:
            raise end.error
        return columns_of(end.transcript)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def source_of(item: JobRow) -> Any:
    """A sound of any length: its path or URL where it has one, as a long file is not held in memory; else samples."""
    sound = sound_of(item.row)
    is_part = sound.offset or sound.duration is not None
    if isinstance(sound.source, str) and not is_remote(sound.source) and not is_part:
        return sound.source
    return load_sound(sound, limits=LIMITS).waveform


def columns_of(transcript: Transcript) -> Mapping[str, Any]:
    """The columns of a transcript. `heard`: seconds of its windows; tokens of prompts are not counted."""
    skipped = sum(end - start for start, end in transcript.skipped)
    segments = transcript.segments
    return {
        "text": transcript.text,
        "heard": round(transcript.seconds - skipped, 6),
        "finish_reason": "length" if any("length" in segment.flags for segment in segments) else "stop",
        "usage": {
            "prompt_tokens": None,
            "audio_tokens": None,
            "completion_tokens": sum(len(segment.tokens) for segment in segments),
        },
        "notes": list(transcript.notes),
        "seconds": round(transcript.seconds, 6),
        "language": transcript.language,
        "segments": [
            {
                "start": round(segment.start, 3), "end": round(segment.end, 3), "text": segment.text,
                "language": segment.language, "confidence": _rounded(segment.confidence), "flags": list(segment.flags),
            }
            for segment in segments
        ],
    }  # fmt: skip


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
