"""The operations `transcribe` and `translate`: sounds of any length, several at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..datasets.remote import is_remote
from ..datasets.row import Sound
from ..datasets.sounds import load_sound
from ..errors import ConfigError
from ..longform.asking import Task
from ..longform.transcribe import LIMITS, Finished, Listening, transcribe
from ..longform.transcript import Transcript
from ..longform.wording import language_of as to_name
from .config import JobConfig
from .reading import READERS, patiently, sound_of
from .runner import JobRow

if TYPE_CHECKING:
    from ..api.chat import AudioChat

AT_ONCE = 32  # sounds; their windows fill the engine
ROOM = 1 << 30  # bytes of samples that are decoded whole: 4.6 hours


class Speech:
    """See `operations.Operation`."""

    def __init__(self, chat: AudioChat, config: JobConfig) -> None:
        if config.translate and to_name(config.translate, "translate") is None:
            raise ConfigError(f"translate is {config.translate!r}; expected a language, such as 'en'.")
        self._service, self._settings = chat.service(), chat.transcription
        self._task = Task(config.language or None, config.translate or None, config.prompt or None)
        self._listening = Listening(everything=config.everything)
        next(transcribe(self._service, [], self._task, self._settings, self._listening), None)  # is the task possible?
        self._sounds = LongSounds()
        self._pool = ThreadPoolExecutor(min(AT_ONCE, config.in_flight), thread_name_prefix="qwen2-audio-speech")

    def read(self, item: JobRow) -> Sound:
        return sound_of(item.row)

    def submit(self, item: JobRow, read: Sound) -> Future[Mapping[str, Any]]:
        return self._pool.submit(self._transcript, read)

    def _transcript(self, sound: Sound) -> Mapping[str, Any]:
        with self._sounds.opened(sound) as source:
            sounds = [(source, sound.name)]
            *_, end = transcribe(self._service, sounds, self._task, self._settings, self._listening)
        assert isinstance(end, Finished)
        if end.error is not None:
            raise end.error
        return columns_of(end.transcript)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class LongSounds:
    """Sounds of any length, as they are worked on. A file is read as it is needed; those that can only be decoded
    whole, in an archive, a table or a store, or parts of a file, share a bounded room, and a sound longer than that has
    it alone."""

    def __init__(self, room: int = ROOM) -> None:
        """`room`: bytes of samples."""
        self._room, self._taken = room, 0
        self._changed = threading.Condition()
        self._decoding = threading.BoundedSemaphore(READERS)  # what they decode comes on top of the room

    @contextmanager
    def opened(self, sound: Sound) -> Iterator[Any]:
        """Its path or URL, or its samples for as long as the block lasts. Raises AudioError, ConfigError."""
        is_part = sound.offset or sound.duration is not None
        if isinstance(sound.source, str) and not is_remote(sound.source) and not is_part:
            yield sound.source
            return
        with self._decoding:
            waveform = patiently(lambda: load_sound(sound, limits=LIMITS)).waveform
            waveform = waveform.copy() if is_part else waveform  # the whole file goes
            size = waveform.nbytes
            with self._changed:
                self._changed.wait_for(lambda: not self._taken or self._taken + size <= self._room)
                self._taken += size
        try:
            yield waveform
        finally:
            with self._changed:
                self._taken -= size
                self._changed.notify_all()


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
