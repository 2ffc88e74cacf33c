"""POST /v1/audio/transcriptions and /v1/audio/translations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from ...types import Chunk, Message, SamplingParams, TokenLogprob
from ..bodies import Form, check_type, parse_form, read_body
from ..convert import drawn_as
from ..errors import ApiError
from ..event_stream import EventStream, all_of, event
from ..protocol import SpeechRequest, parse_speech
from ..speech import UNKNOWN, Unquote, instruction, language_of
from ..state import State
from ..stream_reader import first_of, while_there, whole
from ..transcripts import Transcript, cut, json_body, logprobs_body, srt, usage_body, verbose_body, vtt

_NUMBERS: dict[str, type] = {
    "temperature": float, "top_p": float, "top_k": int, "min_p": float, "repetition_penalty": float, "seed": int,
    "frequency_penalty": float, "presence_penalty": float, "max_completion_tokens": int,
}  # fmt: skip
MAX_TOKENS = 448  # as Whisper's: thirty seconds of fast speech are about 200
_TRUTHS = {"true": True, "false": False, "1": True, "0": False}


class Audio:
    """Writes down what is said."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def transcribe(self, request: Request) -> Response:
        """The route of transcriptions."""
        return await self._answer(request, translate=False)

    async def translate(self, request: Request) -> Response:
        """The route of translations, into English."""
        return await self._answer(request, translate=True)

    async def _answer(self, request: Request, *, translate: bool) -> Response:
        state, arrived = self._state, asyncio.get_running_loop().time()
        check_type(request, "multipart/form-data")
        form = await parse_form(request.headers, await read_body(request, state.settings), state.settings)
        asked = parse_speech(_values(form.fields))
        _check(asked, translate)
        state.check_model(asked.model)
        language = language_of(asked.language)
        text = instruction(translate=translate, language=language, prompt=asked.prompt)
        ticket, chunks = state.ask(_conversation(form, text), _params(asked), arrived)
        if asked.stream:
            first = await first_of(chunks, request, state.settings)
            events = _events(all_of(first, chunks), logprobs="logprobs" in asked.include)
            return EventStream(events, ticket, state.settings, arrived)
        async with aclosing(chunks):
            (answer,) = await while_there(request, whole(chunks, ticket.answers))
        transcript = Transcript(answer, Unquote().push(answer.text, last=True), asked.temperature or 0.0)
        return _formatted(transcript, asked, "translate" if translate else "transcribe", language)


def _values(fields: dict[str, str | list[str]]) -> dict[str, Any]:
    """The form's texts as what they stand for; what cannot be converted stays, to be refused by name."""
    values: dict[str, Any] = {}
    for name, value in fields.items():
        plain = name.removesuffix("[]")
        if plain in ("timestamp_granularities", "include"):
            values[plain] = [value] if isinstance(value, str) else value
        elif plain in values or name.endswith("[]"):
            raise ApiError(f"The form has {name[:40]!r}, which is no list here.", param=name[:40])
        else:
            values[name] = _value(name, str(value))
    return values


def _value(name: str, text: str) -> Any:
    if name == "stream":
        return _TRUTHS.get(text.lower(), text)
    if name in _NUMBERS:
        try:
            return _NUMBERS[name](text)
        except ValueError:
            return text
    return text


def _check(asked: SpeechRequest, translate: bool) -> None:
    """ApiError for fields that exclude each other."""
    if translate and (asked.language is not None or asked.include or asked.timestamp_granularities):
        name = "language" if asked.language is not None else "include" if asked.include else "timestamp_granularities"
        raise ApiError(f"{name} belongs to transcriptions; leave it out.", param=name, code="unknown_parameter")
    if asked.stream and asked.response_format not in ("json", "text"):
        raise ApiError(f"{asked.response_format} is not streamed; expected json or text.", param="response_format")
    if asked.include and asked.response_format != "json":
        raise ApiError("include needs the response_format json.", param="include")
    if asked.timestamp_granularities and asked.response_format != "verbose_json":
        message = "timestamp_granularities needs the response_format verbose_json."
        raise ApiError(message, param="timestamp_granularities")


def _conversation(form: Form, text: str) -> list[Message]:
    return [{"role": "user", "content": [{"type": "audio", "audio": form.file}, {"type": "text", "text": text}]}]


def _params(asked: SpeechRequest) -> SamplingParams:
    """Greedy unless a temperature was asked for, as OpenAI has it for speech."""
    wanted = asked.include or asked.response_format == "verbose_json"
    return drawn_as(
        asked,
        max_tokens=asked.max_completion_tokens or MAX_TOKENS,
        temperature=asked.temperature or 0.0,
        logprobs=0 if wanted else None,
    )


def _formatted(transcript: Transcript, asked: SpeechRequest, task: str, language: str | None) -> Response:
    if asked.response_format == "json":
        return JSONResponse(json_body(transcript, logprobs=bool(asked.include)))
    if asked.response_format == "verbose_json":
        spoken = "english" if task == "translate" else (language or UNKNOWN).lower()
        return JSONResponse(verbose_body(transcript, task=task, language=spoken))
    formats = {"text": lambda one: one.text + "\n", "srt": srt, "vtt": vtt}
    headers = {f"x-{name.replace('_', '-')}": value for name, value in cut(transcript.answer.finish_reason).items()}
    return PlainTextResponse(formats[asked.response_format](transcript), headers=headers)


async def _events(chunks: AsyncIterator[Chunk], *, logprobs: bool) -> AsyncIterator[bytes]:
    """transcript.text.delta for each piece, then transcript.text.done."""
    unquote, told, tokens = Unquote(), "", list[TokenLogprob]()
    async for chunk in chunks:
        tokens += chunk.logprobs
        text = unquote.push(chunk.text, last=chunk.finish_reason is not None)
        told += text
        extra: dict[str, Any] = {"logprobs": logprobs_body(chunk.logprobs)} if logprobs else {}
        if text:
            yield event({"type": "transcript.text.delta", "delta": text, **extra})
        if chunk.finish_reason is not None and chunk.usage is not None:
            all_of_it: dict[str, Any] = {"logprobs": logprobs_body(tokens)} if logprobs else {}
            done = {"type": "transcript.text.done", "text": told, **all_of_it, **cut(chunk.finish_reason)}
            yield event({**done, "usage": usage_body(chunk.usage, chunk.heard)})
