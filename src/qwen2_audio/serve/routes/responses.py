"""POST /v1/responses: OpenAI's newer form of a chat, complete or streamed; GET and DELETE /v1/responses/{id}; and
POST /v1/responses/input_tokens, which counts what such a request would take."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...engine.request import completions_of
from ...types import Chunk, Completion, FinishReason, Heard, Message, SamplingParams, TokenLogprob, Usage
from ..answers import heard_body, logprobs_body
from ..bodies import read_json
from ..convert import alternatives, clip_params, conversation_of, sampling_params
from ..errors import ApiError, as_api_error
from ..event_stream import EventStream, prepend
from ..input_items import messages_of_input
from ..media import fetch_links, links_of
from ..models import served_model
from ..protocol import CacheHints, Fields, Metadata, Sampling, parse_body
from ..response_items import OutputItems
from ..response_store import ResponseStore, StoredResponse
from ..response_tools import ResponseTool, tool_use_of_response
from ..settings import Settings
from ..state import RESERVATION, Reservation, State
from ..stream_reader import collect, run_while_connected, wait_for_first_chunk
from ..structured import check_constraint, constraint_of_text
from ..tools import ToolUse, params_for, with_tools

# Fields that ask for what is not here -> values that ask for nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "background": (False,), "truncation": ("disabled",), "service_tier": ("auto", "default"),
    "reasoning": ({}, {"effort": "none"}), "max_tool_calls": (0,),
    "stream_options": ({}, {"include_obfuscation": False}),
}  # fmt: skip


# Parameters of GET /v1/responses/{id} that ask for nothing.
_WHOLE = (("stream", "false"), ("include_obfuscation", "false"))


class InputTokensRequest(Fields):
    """What a prompt is made of, and what its answer is held to."""

    model: str | None = None
    input: str | list[Any]
    instructions: str | None = None
    previous_response_id: str | None = None
    text: dict[str, Any] = Field(default_factory=dict)
    tools: Annotated[list[ResponseTool], Field(max_length=128)] = Field(default_factory=list)
    tool_choice: Any = None  # checked in tools.py
    parallel_tool_calls: bool = True


class ResponsesRequest(InputTokensRequest, Sampling, CacheHints):
    """OpenAI's fields that this server honours, and vLLM's sampling fields."""

    max_output_tokens: Annotated[int, Field(ge=1, le=2**31)] | None = None
    store: bool = True
    stream: bool = False
    include: list[Literal["message.output_text.logprobs"]] = Field(default_factory=list)
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    metadata: Metadata = Field(default_factory=dict)
    user: Annotated[str, Field(max_length=256)] | None = None  # these two are accepted; nothing is done for them
    safety_identifier: Annotated[str, Field(max_length=256)] | None = None


@dataclass
class _Body:
    """A response, as it grows."""

    asked: ResponsesRequest
    model: str
    id: str
    use: ToolUse | None
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def with_logprobs(self) -> bool:
        return bool(self.asked.include) or self.asked.top_logprobs is not None

    def items(self) -> OutputItems:
        """Of a new answer."""
        return OutputItems(self.use, self._shown)

    def _shown(self, logprobs: Sequence[TokenLogprob]) -> list[Any]:
        return logprobs_body(logprobs)["content"] if self.with_logprobs else []

    def response(self, status: str, output: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        asked = self.asked
        return {
            "id": self.id, "object": "response", "created_at": self.created, "status": status, "model": self.model,
            "output": output, "error": None, "incomplete_details": None, "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens, "metadata": asked.metadata,
            "parallel_tool_calls": asked.parallel_tool_calls and bool(asked.tools),
            "previous_response_id": asked.previous_response_id, "store": asked.store, "temperature": asked.temperature,
            "text": {"format": {"type": "text"}, **{key: one for key, one in asked.text.items() if one is not None}},
            "tool_choice": asked.tool_choice or ("auto" if asked.tools else "none"),
            "tools": [tool.body for tool in asked.tools],
            "top_p": asked.top_p, "truncation": "disabled", "usage": None, **more,
        }  # fmt: skip

    def ended(self, answer: Completion, items: list[dict[str, Any]]) -> dict[str, Any]:
        """The whole response."""
        status = _status(answer.finish_reason)
        details = None if status == "completed" else {"reason": "max_output_tokens"}
        usage = _usage(answer.usage, answer.heard)
        return self.response(status, items, incomplete_details=details, usage=usage)


def _status(reason: FinishReason) -> str:
    return "completed" if reason == "stop" else "incomplete"


def _usage(usage: Usage, heard: Sequence[Heard]) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.prompt_tokens - usage.cached_tokens,
            "audio_tokens": usage.audio_tokens,
        },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.total_tokens,
        "heard": heard_body(heard),
    }


class ResponseRoutes:
    """Answers requests of the Responses API."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._store = ResponseStore(state.settings.stored_bytes)

    async def create(self, request: Request) -> Response:
        """POST /v1/responses."""
        state, arrived = self._state, asyncio.get_running_loop().time()
        asked, new, clips = await read_json(request, state.settings, partial(_converted, ResponsesRequest))
        model = await served_model(state, asked.model)
        use, params = await asyncio.to_thread(_use_and_params, asked, state.settings)
        said = await self._conversation(request, asked, new)
        clips = _clips_of_all(said, clips)
        handle, chunks = model.submit(_prompted(asked, said, use), params, arrived, clip_params=clips)
        where = f"{state.replica}_" if state.replica else ""
        body = _Body(asked, model.name, id=f"resp_{where}{uuid.uuid4().hex}", use=use)
        if asked.stream:
            first = await wait_for_first_chunk(chunks, request, state.settings)
            events = self._events(prepend(first, chunks), body, said)
            return EventStream(events, handle, state.settings, arrived)
        async with aclosing(chunks):
            (answer,) = await run_while_connected(request, collect(chunks, 1))
        items = body.items().items_of(answer, _status(answer.finish_reason))
        return JSONResponse(self._keep(body, answer, items, said))

    async def input_tokens(self, request: Request) -> Response:
        """POST /v1/responses/input_tokens."""
        state = self._state
        asked, new, clips = await read_json(request, state.settings, partial(_converted, InputTokensRequest))
        await served_model(state, asked.model)  # an adapter has its base's tokens
        use = await asyncio.to_thread(_use, asked)
        said = await self._conversation(request, asked, new)
        try:
            prompt = await asyncio.to_thread(state.backend.prompt, _prompted(asked, said, use))
        except Exception as error:
            raise as_api_error(error, state.settings.retry, _clips_of_all(said, clips)) from error
        return JSONResponse({"object": "response.input_tokens", "input_tokens": len(prompt.ids)})

    async def retrieve(self, request: Request) -> Response:
        """GET /v1/responses/{id}."""
        for name, value in request.query_params.items():
            if (name, value) not in _WHOLE:
                message = f"{name[:80]} cannot be honoured: a response is given whole, as it was stored."
                raise ApiError(message, param=name[:80], code="unsupported_value")
        return Response(self._stored(request.path_params["id"]).body, media_type="application/json")

    async def delete(self, request: Request) -> Response:
        """DELETE /v1/responses/{id}."""
        identifier = request.path_params["id"]
        if not self._store.delete(identifier):
            raise _unknown(identifier, "id")
        return JSONResponse({"id": identifier, "object": "response", "deleted": True})

    def _stored(self, identifier: str, param: str = "id") -> StoredResponse:
        stored = self._store.get(identifier)
        if stored is None:
            raise _unknown(identifier, param)
        return stored

    async def _conversation(self, request: Request, asked: InputTokensRequest, new: list[Message]) -> list[Message]:
        """What was said before, and what is new, with the clips that it links to."""
        before = asked.previous_response_id
        earlier = [] if before is None else self._stored(before, "previous_response_id").messages
        if links := links_of(new):
            reservation: Reservation = request.scope[RESERVATION]
            await run_while_connected(request, fetch_links(links, self._state.settings, reservation.reserve))
        return [*earlier, *new]

    def _keep(
        self, body: _Body, answer: Completion, items: list[dict[str, Any]], messages: list[Message]
    ) -> dict[str, Any]:
        """The whole response, which is stored if the request wants it."""
        kept = body.ended(answer, items)
        if body.asked.store:
            said = {"role": "assistant", "content": answer.text}
            self._store.put(StoredResponse(body.id, _json(kept).encode(), [*messages, said]))
        return kept

    async def _events(self, chunks: AsyncIterator[Chunk], body: _Body, messages: list[Message]) -> AsyncIterator[bytes]:
        """The events of the whole stream. An error is the last of them."""
        number, seen, output = 0, list[Chunk](), body.items()

        def event(kind: str, **fields: Any) -> bytes:
            nonlocal number
            number += 1
            data = _json({"type": kind, "sequence_number": number - 1, **fields})
            return f"event: {kind}\ndata: {data}\n\n".encode()

        running = body.response("in_progress", [])
        yield event("response.created", response=running)
        yield event("response.in_progress", response=running)
        try:
            for kind, fields in output.start():
                yield event(kind, **fields)
            async for chunk in chunks:
                seen.append(chunk)
                for kind, fields in output.add(chunk.text, chunk.logprobs):
                    yield event(kind, **fields)
            (answer,) = completions_of(seen, 1)
            for kind, fields in output.end(_status(answer.finish_reason)):
                yield event(kind, **fields)
            kept = self._keep(body, answer, output.items, messages)
            yield event(f"response.{kept['status']}", response=kept)
        except Exception as error:
            # As OpenAI documents it, and under "error" as it sends it: there its clients look.
            told = as_api_error(error, self._state.settings.retry).body
            yield event("error", **{key: told["error"][key] for key in ("code", "message", "param")}, **told)


_Asked = TypeVar("_Asked", bound=InputTokensRequest)


def _converted(kind: type[_Asked], fields: Any, settings: Settings) -> tuple[_Asked, list[Message], list[str]]:
    """The request, its new messages, and the field of each clip. ApiError for a field that is wrong."""
    asked = parse_body(kind, _without_neutral(fields))
    items, places = messages_of_input(asked.input)
    return asked, conversation_of(items, settings, "input", places), clip_params(items, places)


def _clips_of_all(messages: list[Message], new: list[str]) -> list[str]:
    """The request's field of each clip: those of earlier turns were heard then; an error about a clip is about a new
    one."""
    return ["previous_response_id"] * (len(clip_params(messages)) - len(new)) + new


def _prompted(asked: InputTokensRequest, messages: list[Message], use: ToolUse | None) -> list[Message]:
    """The conversation behind the system turn that the request asks for."""
    system = [] if asked.instructions is None else [{"role": "system", "content": asked.instructions}]
    return [*system, *messages] if use is None else with_tools([*system, *messages], use)


def _use(asked: InputTokensRequest) -> ToolUse | None:
    constraint_of_text(asked.text)  # or it is refused
    return tool_use_of_response(asked.tools, asked.tool_choice, parallel=asked.parallel_tool_calls)


def _use_and_params(asked: ResponsesRequest, settings: Settings) -> tuple[ToolUse | None, SamplingParams]:
    """What the answer may call, and its parameters, whose schemas are compiled to know whether they can be honoured."""
    use = _use(asked)
    if use is not None and (asked.include or asked.top_logprobs is not None):
        param = "include" if asked.include else "top_logprobs"
        raise ApiError(f"{param}: log-probabilities are not told beside tools; leave one of them out.", param=param)
    params = _params(asked, use, settings)
    check_constraint(params, "text.format.schema" if constraint_of_text(asked.text) else "tools")
    return use, params


def _params(asked: ResponsesRequest, use: ToolUse | None, settings: Settings) -> SamplingParams:
    if asked.max_completion_tokens is not None and asked.max_output_tokens not in (None, asked.max_completion_tokens):
        raise ApiError("max_output_tokens and max_completion_tokens differ; give one.", param="max_output_tokens")
    with_logprobs = asked.include or asked.top_logprobs is not None
    form = constraint_of_text(asked.text)
    return sampling_params(
        asked,
        max_tokens=asked.max_output_tokens or asked.max_completion_tokens,
        logprobs=alternatives(asked.top_logprobs or 0, "top_logprobs", settings) if with_logprobs else None,
        **(form if use is None else params_for(use, form)),
    )


def _without_neutral(fields: Any) -> Any:
    """Without fields that ask for nothing. ApiError for those that ask for what is not here."""
    if not isinstance(fields, dict):
        return fields
    for name, neutral in _NEUTRAL.items():
        value = fields.get(name)
        if isinstance(value, dict):
            value = {key: inner for key, inner in value.items() if inner is not None}
        if value is not None and not any(value == one and type(value) is type(one) for one in neutral):
            raise ApiError(f"{name} cannot be honoured by /v1/responses.", param=name, code="unsupported_value")
    return {name: value for name, value in fields.items() if name not in _NEUTRAL}


def _json(body: Any) -> str:
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _unknown(identifier: str, param: str) -> ApiError:
    return ApiError(
        f"There is no response {identifier[:80]!r} here: it was not stored, or it has been forgotten.",
        status=404,
        param=param,
        code="response_not_found",
    )
