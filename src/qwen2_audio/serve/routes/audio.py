"""POST /v1/audio/transcriptions and /v1/audio/translations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from ...engine.request import RequestHandle
from ...longform.asking import Task
from ...longform.questions.recordings import seconds_of_long
from ...longform.text_language import language_of_text
from ...longform.transcribe import LIMITS
from ...longform.wording import ENGLISH, LANGUAGES, Unquote
from ...types import Chunk, Message, SamplingParams, TokenLogprob
from .. import long_audio
from ..bodies import FORM, check_content_type, read_form
from ..convert import sampling_params
from ..errors import ApiError
from ..event_stream import EventStream, encode_event, prepend
from ..models import ServedModel, served_model
from ..protocol import SpeechRequest, parse_speech
from ..speech import UNKNOWN, check_aligner, language_of, question
from ..state import State
from ..stream_reader import collect, run_while_connected, wait_for_first_chunk
from ..transcripts import (
    Transcript,
    json_body,
    logprobs_body,
    running_usage,
    srt,
    truncation_fields,
    usage_body,
    verbose_body,
    vtt,
)

_NUMBER_FIELDS: dict[str, type] = {
    "temperature": float, "top_p": float, "top_k": int, "min_p": float, "repetition_penalty": float, "seed": int,
    "frequency_penalty": float, "presence_penalty": float, "max_completion_tokens": int,
}  # fmt: skip
MAX_TOKENS = 448  # default, Whisper's; 30 s of fast speech take about 200
_BOOLEAN_FIELDS = ("stream", "stream_include_usage", "stream_continuous_usage_stats")
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}


class AudioRoutes:
    """Transcribes and translates clips."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def transcribe(self, request: Request) -> Response:
        """POST /v1/audio/transcriptions."""
        return await self._answer(request, translate=False)

    async def translate(self, request: Request) -> Response:
        """POST /v1/audio/translations, into English or `to_language`."""
        return await self._answer(request, translate=True)

    async def _answer(self, request: Request, *, translate: bool) -> Response:
        arrived = asyncio.get_running_loop().time()
        check_content_type(request, FORM)
        form = await read_form(request, self._state.settings)
        with ExitStack() as closing:
            closing.callback(form.file.close)
            speech = parse_speech(_values(form.fields))
            _check_combinations(speech, translate)
            model = await served_model(self._state, speech.model)
            language = language_of(speech.language)
            to = (language_of(speech.to_language, "to_language") or ENGLISH) if translate else None
            text = question(to=to, language=language, prompt=speech.prompt, base=model.backend.is_base)
            words = "word" in speech.timestamp_granularities
            if words:
                await asyncio.to_thread(check_aligner, model.backend.aligner)
            # A file that memory is not reserved for is long by its size, and read from the disk.
            large = form.size > self._state.settings.clip_bytes
            if words or large or await asyncio.to_thread(seconds_of_long, form.file, LIMITS) is not None:
                long_audio.check_fields(speech)
                closing.pop_all()
                task = Task(language, to, speech.prompt, speech.temperature or 0.0)
                return await long_audio.answer(request, model, form.file, speech, task)
            form.file.seek(0)
            clip = {"type": "audio", "audio": await asyncio.to_thread(form.file.read)}
        messages: list[Message] = [{"role": "user", "content": [clip, {"type": "text", "text": text}]}]
        task_name = "translate" if translate else "transcribe"
        return await self._short(request, model, messages, speech, arrived, task_name, to or language)

    async def _short(
        self,
        request: Request,
        model: ServedModel,
        messages: list[Message],
        speech: SpeechRequest,
        arrived: float,
        task: str,
        spoken: str | None,
    ) -> Response:
        """The response to a clip of one window. `spoken`: the transcript's language, where the request tells it."""
        state, raw = self._state, model.backend.is_base
        handle, chunks = model.submit(messages, _params(speech), arrived, clip_params=("file",), raw=raw)
        if speech.stream:
            first = await wait_for_first_chunk(chunks, request, state.settings)
            events = _events(prepend(first, chunks), speech, handle)
            return EventStream(events, handle, state.settings, arrived)
        async with aclosing(chunks):
            (answer,) = await run_while_connected(request, collect(chunks, handle.answers))
        unquote = Unquote()
        transcript = Transcript(answer, unquote.push(answer.text, last=True), speech.temperature or 0.0)
        spoken = spoken or LANGUAGES.get(unquote.language or language_of_text(transcript.text) or "", UNKNOWN)
        return _formatted(transcript, speech, task, spoken.lower())


def _values(fields: dict[str, str | list[str]]) -> dict[str, Any]:
    """The form's strings as JSON values. A string that cannot be converted stays: validation then names its field."""
    values: dict[str, Any] = {}
    for name, value in fields.items():
        plain = name.removesuffix("[]")
        if plain in ("timestamp_granularities", "include"):
            values[plain] = [value] if isinstance(value, str) else value
        elif plain in values or name.endswith("[]"):
            raise ApiError(f"The form has {name[:40]!r}, which is no list here.", param=name[:40])
        elif value != "":  # many clients send every field of their form; an empty one asks for nothing
            values[name] = _value(name, str(value))
    return values


def _value(name: str, text: str) -> Any:
    if name in _BOOLEAN_FIELDS:
        return _BOOLEANS.get(text.lower(), text)
    if name in _NUMBER_FIELDS:
        try:
            return _NUMBER_FIELDS[name](text)
        except ValueError:
            return text
    return text


def _check_combinations(speech: SpeechRequest, translate: bool) -> None:
    """ApiError for fields that cannot be combined."""
    if translate and (speech.include or speech.timestamp_granularities):
        name = "include" if speech.include else "timestamp_granularities"
        raise ApiError(f"{name} belongs to transcriptions; leave it out.", param=name, code="unknown_parameter")
    if not translate and speech.to_language is not None:
        message = "to_language belongs to translations; leave it out."
        raise ApiError(message, param="to_language", code="unknown_parameter")
    if speech.stream and speech.response_format not in ("json", "text"):
        raise ApiError(f"{speech.response_format} is not streamed; expected json or text.", param="response_format")
    if speech.include and speech.response_format != "json":
        raise ApiError("include needs the response_format json.", param="include")
    if speech.timestamp_granularities and speech.response_format != "verbose_json":
        message = "timestamp_granularities needs the response_format verbose_json."
        raise ApiError(message, param="timestamp_granularities")


def _params(speech: SpeechRequest) -> SamplingParams:
    """Greedy and without a repetition penalty unless the request has them."""
    with_logprobs = speech.include or speech.response_format == "verbose_json"
    return sampling_params(
        speech,
        max_tokens=speech.max_completion_tokens or MAX_TOKENS,
        temperature=speech.temperature or 0.0,
        repetition_penalty=1.0 if speech.repetition_penalty is None else speech.repetition_penalty,
        logprobs=0 if with_logprobs else None,
    )


def _formatted(transcript: Transcript, speech: SpeechRequest, task: str, language: str) -> Response:
    if speech.response_format == "json":
        return JSONResponse(json_body(transcript, logprobs=bool(speech.include)))
    if speech.response_format == "verbose_json":
        return JSONResponse(verbose_body(transcript, task=task, language=language))
    formats = {"text": lambda transcript: transcript.text + "\n", "srt": srt, "vtt": vtt}
    headers = {
        f"x-{name.replace('_', '-')}": value
        for name, value in truncation_fields(transcript.answer.finish_reason).items()
    }
    return PlainTextResponse(formats[speech.response_format](transcript), headers=headers)


async def _events(chunks: AsyncIterator[Chunk], speech: SpeechRequest, handle: RequestHandle) -> AsyncIterator[bytes]:
    """A transcript.text.delta event for each chunk with text, then transcript.text.done."""
    logprobs = "logprobs" in speech.include
    unquote, transcript, tokens = Unquote(), "", list[TokenLogprob]()
    async for chunk in chunks:
        tokens += chunk.logprobs
        text = unquote.push(chunk.text, last=chunk.finish_reason is not None)
        transcript += text
        extra: dict[str, Any] = {"logprobs": logprobs_body(chunk.logprobs)} if logprobs else {}
        if speech.stream_continuous_usage_stats:
            extra["usage"] = running_usage(handle.prompt_usage, chunk.num_tokens)
        if text:
            yield encode_event({"type": "transcript.text.delta", "delta": text, **extra})
        if chunk.finish_reason is not None and chunk.usage is not None:
            all_logprobs: dict[str, Any] = {"logprobs": logprobs_body(tokens)} if logprobs else {}
            done: dict[str, Any] = {
                "type": "transcript.text.done",
                "text": transcript,
                **all_logprobs,
                **truncation_fields(chunk.finish_reason),
            }
            if speech.stream_include_usage:
                done["usage"] = usage_body(chunk.usage, chunk.heard)
            yield encode_event(done)
