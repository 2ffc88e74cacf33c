"""POST /v1/embeddings."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import deque
from collections.abc import Sequence
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError
from starlette.requests import Request
from starlette.responses import Response

from ...engine.request import RequestHandle
from ...errors import BusyError
from ...types import Chunk, EmbeddingInput, Message, Pooling, PoolingParams, Source, Usage
from ..answers import heard_body
from ..bodies import read_json
from ..convert import clip_params, conversation_of
from ..errors import ApiError
from ..media import fetch_links, links_of
from ..models import ServedModel, served_model
from ..protocol import Body, parse_body
from ..settings import Settings
from ..state import RESERVATION, Reservation, State
from ..stream_reader import run_while_connected, stream

MOST_INPUTS = 2048  # of one request, as OpenAI has it
AHEAD = 64  # inputs of one request that are queued at a time, so that others find room
_LOOK = 0.01  # s, until a full queue is tried again
_OF_INPUT = ("invalid_messages", "context_length_exceeded", "request_too_large")  # codes of errors of one input
MOST_NUMBERS = 1 << 23  # of one answer, 34 MB of float32: pooling "none" has a vector for each position


def _checked_input(value: Any) -> Any:
    """`value`, where it has one of the types of `input`: pydantic would explain each of them."""
    kinds = {type(item) for item in value} if isinstance(value, list) else set()
    known = {str, int}
    if kinds == {list}:
        kinds, known = {type(token) for item in value for token in item}, {int}
    if len(kinds) > 1 or kinds - known or not isinstance(value, str | list):
        raise PydanticCustomError("input", "Input should be a text, a list of texts, token ids, or a list of those")
    return value


class EmbeddingRequest(Body):
    """OpenAI's fields, vLLM's `messages`, and what `m.embed` takes."""

    input: Annotated[str | list[str] | list[int] | list[list[int]] | None, BeforeValidator(_checked_input)] = None
    messages: list[Any] | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    source: Source = "language_model"
    layer: int = -1
    pooling: Pooling | None = None
    use_activation: bool = True  # vLLM's name: normalise to length 1
    add_generation_prompt: bool = False
    user: Annotated[str, Field(max_length=256)] | None = None  # accepted; nothing is done for it


class EmbeddingRoutes:
    """Embeds texts, and conversations with clips."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def embed(self, request: Request) -> Response:
        """POST /v1/embeddings."""
        state, arrived = self._state, asyncio.get_running_loop().time()
        asked, messages, inputs = await read_json(request, state.settings, _converted)
        model = await served_model(state, asked.model)
        params = PoolingParams(asked.source, asked.layer, asked.pooling, asked.use_activation)
        if links := links_of(messages):
            reservation: Reservation = request.scope[RESERVATION]
            await run_while_connected(request, fetch_links(links, state.settings, reservation.reserve))
        fields = _fields_of(asked, len(inputs))
        work = self._embed_all(model, inputs, params, arrived, asked.priority, clip_params(messages), fields)
        chunks = await run_while_connected(request, work)
        _check_dimensions(asked.dimensions, chunks[0].embedding.shape[-1])
        body = await asyncio.to_thread(_body, chunks, asked.encoding_format, model.name)
        return Response(body, media_type="application/json")

    async def _embed_all(
        self,
        model: ServedModel,
        inputs: Sequence[EmbeddingInput],
        params: PoolingParams,
        arrived: float,
        priority: int,
        clips: Sequence[str],
        fields: Sequence[str | None],
    ) -> list[Chunk]:
        """The last chunk of each input. `clips`, `fields`: the request's field of each clip and input, for errors.
        A full queue refuses the first one only: the others wait for room."""
        state, done = self._state, list[Chunk]()
        running: deque[RequestHandle] = deque()
        ahead = 1 if params.pooled_by == "none" else AHEAD
        waiting = deque(inputs)
        try:
            while waiting:
                if len(running) == ahead:
                    done.append(await self._last_chunk(running.popleft(), clips, fields[len(done)]))
                timeout = state.seconds_left(arrived)
                try:
                    handle = model.backend.submit_embedding(
                        waiting[0], params, timeout=timeout, priority=priority, check_size=partial(_check_size, done)
                    )
                except BusyError:
                    if running:  # whose end makes room
                        done.append(await self._last_chunk(running.popleft(), clips, fields[len(done)]))
                    elif done:  # others were quicker
                        await asyncio.sleep(_LOOK)
                    else:  # nothing is lost yet
                        raise
                else:
                    waiting.popleft()
                    running.append(handle)
            while running:
                done.append(await self._last_chunk(running.popleft(), clips, fields[len(done)]))
        finally:
            for handle in running:  # after an error
                handle.cancel()
        _check_size(done, 0)
        return done

    async def _last_chunk(self, handle: RequestHandle, clips: Sequence[str], field: str | None) -> Chunk:
        """`field`: of the request, for errors."""
        try:
            async with aclosing(stream(handle, self._state.settings, clips)) as chunks:
                return [chunk async for chunk in chunks][-1]
        except ApiError as error:
            if error.param is None and error.code in _OF_INPUT:
                error.param = field
            raise


def _converted(fields: Any, settings: Settings) -> tuple[EmbeddingRequest, list[Message], list[EmbeddingInput]]:
    """The request, and what `_inputs` makes of it."""
    asked = parse_body(EmbeddingRequest, fields)
    return asked, *_inputs(asked, settings)


def _inputs(asked: EmbeddingRequest, settings: Settings) -> tuple[list[Message], list[EmbeddingInput]]:
    """The conversation, whose clips may be links yet, and what is to be embedded. ApiError for none or both."""
    if (asked.input is None) == (asked.messages is None):
        what = "nothing" if asked.input is None else "input and messages"
        raise ApiError(f"The request has {what}; expected input, or messages for clips.", param="input")
    if asked.messages is not None:
        messages = conversation_of(asked.messages, settings)
        # One message of a user is embedded as it stands, as MTEB does and `m.embed` for `user(...)`.
        if len(messages) == 1 and messages[0]["role"] == "user" and not asked.add_generation_prompt:
            return messages, [EmbeddingInput(message=messages[0])]
        ending = asked.add_generation_prompt
        return messages, [EmbeddingInput(conversation=tuple(messages), add_generation_prompt=ending)]
    if asked.add_generation_prompt:
        raise ApiError("add_generation_prompt belongs to messages; leave it out.", param="add_generation_prompt")
    values: Any = asked.input
    if isinstance(values, str) or (values and isinstance(values[0], int)):
        values = [values]
    if not 1 <= len(values) <= MOST_INPUTS:
        raise ApiError(f"input has {len(values)} texts; expected 1 to {MOST_INPUTS}.", param="input")
    if not all(values):
        raise ApiError("input has an empty text; every input needs at least one character.", param="input")
    return [], [_text_input(value) for value in values]


def _fields_of(asked: EmbeddingRequest, count: int) -> list[str | None]:
    """The request's field of each input; None of a conversation, whose parts have fields of their own."""
    if asked.messages is not None:
        return [None]
    is_list = isinstance(asked.input, list) and not isinstance(asked.input[0], int)
    return [f"input[{number}]" for number in range(count)] if is_list else ["input"]


def _text_input(value: str | list[int]) -> EmbeddingInput:
    if isinstance(value, str):
        return EmbeddingInput(message={"role": "user", "content": value})
    return EmbeddingInput(ids=tuple(value))


def _check_size(done: Sequence[Chunk], more: int) -> None:
    """ApiError (413) where `more` numbers, beside those of `done`, are more than one answer may have."""
    if sum(chunk.embedding.size for chunk in done) + more > MOST_NUMBERS:
        raise ApiError(
            f"The embeddings have more than {MOST_NUMBERS:,} numbers, the limit for an answer; send fewer inputs, or "
            "let them be pooled.",
            status=413,
            param="pooling",
            code="answer_too_large",
        )


def _check_dimensions(dimensions: int | None, width: int) -> None:
    if dimensions not in (None, width):
        raise ApiError(
            f"dimensions is {dimensions}, and the embedding has {width}; the model was not trained for shorter ones.",
            param="dimensions",
            code="unsupported_value",
        )


def _body(chunks: Sequence[Chunk], encoding: str, model: str) -> bytes:
    """The answer as JSON."""
    data = ",".join(_item(index, chunk.embedding, encoding) for index, chunk in enumerate(chunks))
    about = _json({"model": model, "usage": _usage(chunks)})
    return f'{{"object":"list","data":[{data}],{about[1:]}'.encode()


def _item(index: int, vector: np.ndarray, encoding: str) -> str:
    """One embedding, [H] or [T, H]. Each row is written by itself: json keeps other threads from running meanwhile."""
    if encoding == "base64":
        written = _json(base64.b64encode(vector.astype("<f4").tobytes()).decode())
    elif vector.ndim == 2:
        written = f"[{','.join(_json(row.tolist()) for row in vector)}]"
    else:
        written = _json(vector.tolist())
    shape = {"shape": list(vector.shape)} if vector.ndim == 2 else {}  # of pooling "none": positions, width
    about = _json({"object": "embedding", "index": index, **shape})
    return f'{about[:-1]},"embedding":{written}}}'


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _usage(chunks: Sequence[Chunk]) -> dict[str, Any]:
    usages = [chunk.usage or Usage(0, 0, 0) for chunk in chunks]
    heard = [clip for chunk in chunks for clip in chunk.heard]
    prompt = sum(usage.prompt_tokens for usage in usages)
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt,
        "prompt_tokens_details": {
            "audio_tokens": sum(usage.audio_tokens for usage in usages),
            "cached_tokens": sum(usage.cached_tokens for usage in usages),
            "audio_seconds": round(sum(clip.seconds for clip in heard), 3),
        },
        "heard": heard_body(heard),
    }
