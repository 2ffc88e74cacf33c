"""Transcriptions of clips that are longer than a window, or with times of words: on a thread of their own, segments as
they come."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, BinaryIO

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from ..audio.limits import Limits
from ..engine.request import RequestHandle
from ..errors import AudioError
from ..longform.asking import Task
from ..longform.formats import verbose_object, write
from ..longform.transcribe import Finished, Listening, Progress, transcribe
from ..longform.transcript import Transcript, join_texts
from ..longform.word_times_segments import SegmentTimes
from ..longform.wording import LANGUAGES
from ..types import Chunk
from .errors import ApiError, as_api_error, shutting_down, too_slow
from .event_stream import EventStream, encode_event
from .models import ServedModel
from .protocol import SpeechRequest
from .settings import Settings
from .speech import UNKNOWN
from .stream_reader import run_while_connected

# Fields of a request that shape one answer, and would say nothing of the many that a long clip takes.
_OF_ONE_ANSWER = (
    "top_p", "top_k", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty", "max_completion_tokens",
    "seed",
)  # fmt: skip
_FORMATS = {"text": "txt", "srt": "srt", "vtt": "vtt"}


def total_seconds(settings: Settings) -> float:
    """That a long clip may take in all: as long as the longest one lasts."""
    return max(settings.deadline, settings.clip_seconds)


def check_fields(speech: SpeechRequest) -> None:
    """ApiError for fields that would not act on a long clip."""
    for name in _OF_ONE_ANSWER:
        if getattr(speech, name) is not None:
            message = f"{name} acts on clips of at most 30 s without times of words; leave it out."
            raise ApiError(message, param=name, code="unsupported_value")
    if speech.include:
        message = "include is for clips of at most 30 s without times of words; leave it out."
        raise ApiError(message, param="include", code="unsupported_value")


async def answer(request: Request, model: ServedModel, clip: BinaryIO, speech: SpeechRequest, task: Task) -> Response:
    """The response to a transcription, or with `task.to` a translation, of a clip, which is closed in the end."""
    try:
        words = "word" in speech.timestamp_granularities
        work = _Work(model, clip, task, SegmentTimes(model.backend.aligner if words else None))
    except BaseException:
        clip.close()
        raise
    settings = model.state.settings
    if speech.stream:  # the stream is broken off with the work, if its client does not read
        return EventStream(_stream(work, speech), work.handle, settings, work.end - settings.deadline)
    async with aclosing(work.events()) as events:
        transcript = await run_while_connected(request, _collect(events))
    return _formatted(transcript, speech)


class _Work:
    """A transcription on a thread. Attributes: `handle`, whose `cancel` stops it; `end`, by the event loop's clock."""

    def __init__(self, model: ServedModel, clip: BinaryIO, task: Task, times: SegmentTimes) -> None:
        """ApiError (503) if the server is shutting down. The thread closes `clip`."""
        self._settings = settings = model.state.settings
        if model.state.closing:
            raise shutting_down(settings.retry)
        self._stopped = threading.Event()
        self.handle = RequestHandle(1, lambda _: self._stopped.set())
        self._loop, self._queue = asyncio.get_running_loop(), asyncio.Queue[Progress | Finished | Exception | None]()
        self._seconds = total_seconds(settings)
        self.end = self._loop.time() + self._seconds
        limits = Limits(max_bytes=settings.upload_bytes, max_seconds=settings.clip_seconds, deadline=self._seconds)
        listening = Listening(limits=limits, count_first=True)
        source, transcription = [(clip, "The file")], model.backend.transcription
        steps = transcribe(
            model.backend, source, task, transcription, listening, timeout=settings.deadline, times=times
        )
        threading.Thread(target=self._run, args=(steps, clip), name="long audio", daemon=True).start()

    async def events(self) -> AsyncGenerator[Progress | Finished, None]:
        """Progress, then the transcript. ApiError for what ends it early. Closing this stops the work."""
        try:
            while (event := await self._next()) is not None:
                if isinstance(event, Exception):
                    raise event
                if isinstance(event, Finished) and event.error is not None:
                    raise self._as_api_error(event.error)
                yield event
        finally:
            self.handle.cancel()

    async def _next(self) -> Progress | Finished | Exception | None:
        try:
            async with asyncio.timeout_at(self.end):
                return await self._queue.get()
        except TimeoutError as error:
            raise too_slow(self._seconds, "send the sound in parts") from error

    def _run(self, steps: Any, clip: BinaryIO) -> None:
        try:
            for event in steps:
                if self._stopped.is_set():
                    break
                self._put(event)
        except Exception as error:  # a fault of ours: the client gets a status, and the log the rest
            self._put(error)
        finally:
            steps.close()
            clip.close()
            self._put(None)  # also where the client has gone, or its stream would wait
            self.handle.put(Chunk("", "stop"))

    def _put(self, event: Progress | Finished | Exception | None) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, event)

    def _as_api_error(self, error: Exception) -> ApiError:
        if isinstance(error, TimeoutError):
            late = str(error) == "deadline"
            return too_slow(self._settings.deadline) if late else shutting_down(self._settings.retry)
        if isinstance(error, AudioError):
            error.clip = 1
        return as_api_error(error, self._settings.retry, ("file",))


async def _collect(events: AsyncGenerator[Progress | Finished, None]) -> Transcript:
    async for event in events:
        if isinstance(event, Finished):
            return event.transcript
    raise shutting_down(0)


def _formatted(transcript: Transcript, speech: SpeechRequest) -> Response:
    if speech.response_format == "json":
        return JSONResponse({"text": transcript.text, "usage": _usage(transcript), **_notes(transcript)})
    if speech.response_format == "verbose_json":
        language = LANGUAGES.get(transcript.language or "", UNKNOWN).lower()
        words = "word" in speech.timestamp_granularities
        return JSONResponse({**verbose_object(transcript, words=words), "language": language, **_notes(transcript)})
    if speech.response_format == "text":
        return PlainTextResponse(transcript.text + "\n")
    return PlainTextResponse(write(transcript, _FORMATS[speech.response_format]))


async def _stream(work: _Work, speech: SpeechRequest) -> AsyncIterator[bytes]:
    """For each segment its times and its text as OpenAI's events, then the whole text."""
    said, number = "", 0
    async with aclosing(work.events()) as events:
        async for event in events:
            if isinstance(event, Finished):
                talk = event.transcript
                done: dict[str, Any] = {"type": "transcript.text.done", "text": talk.text, **_notes(talk)}
                if speech.stream_include_usage:
                    done["usage"] = _usage(talk)
                yield encode_event(done)
                continue
            for segment in event.segments:
                if not segment.text:
                    continue
                times = {"start": round(segment.start, 3), "end": round(segment.end, 3)}
                place = {"type": "transcript.text.segment", "id": f"seg_{number}", "speaker": ""}
                yield encode_event({**place, **times, "text": segment.text})
                longer = join_texts([said, segment.text])
                yield encode_event({"type": "transcript.text.delta", "delta": longer[len(said) :]})
                said, number = longer, number + 1


def _usage(transcript: Transcript) -> dict[str, Any]:
    return {"type": "duration", "seconds": round(transcript.seconds, 3)}


def _notes(transcript: Transcript) -> dict[str, list[str]]:
    """What of the sound was lost or left out; nothing where all was heard."""
    return {"notes": list(transcript.notes)} if transcript.notes else {}
