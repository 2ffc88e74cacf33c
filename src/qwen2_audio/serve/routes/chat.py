"""POST /v1/chat/completions."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...types import Message, SamplingParams
from ..answers import Head, completion_body
from ..bodies import check_type, parse_json, read_body
from ..convert import messages_of, params_of
from ..event_stream import ChatEvents, EventStream, all_of
from ..media import fetch_links, links_of
from ..protocol import ChatRequest, parse_chat
from ..settings import Settings
from ..state import PLACE, Place, State
from ..stream_reader import first_of, while_there, whole

log = logging.getLogger(__name__)
_SMALL = 64 << 10  # bytes of a body that is parsed at once; a larger one would hold up the other requests


class Chat:
    """Answers conversations."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def complete(self, request: Request) -> Response:
        """The route."""
        state, arrived = self._state, asyncio.get_running_loop().time()
        check_type(request, "application/json")
        body = await read_body(request, state.settings)
        read = asyncio.to_thread(_read, body, state.settings) if len(body) > _SMALL else None
        asked, messages, params = await read if read else _read(body, state.settings)
        del body
        state.check_model(asked.model)
        _log_labels(asked)
        if links := links_of(messages):
            place: Place = request.scope[PLACE]
            await while_there(request, fetch_links(links, state.settings, place.take))
        ticket, chunks = state.ask(messages, params, arrived, asked.priority)
        head = Head(state.names[0], "chat.completion.chunk" if asked.stream else "chat.completion")
        if not asked.stream:
            async with aclosing(chunks):
                answers = await while_there(request, whole(chunks, ticket.answers))
            return JSONResponse(completion_body(head, answers, logprobs=asked.logprobs))
        first = await first_of(chunks, request, state.settings)
        usage = asked.stream_options is not None and asked.stream_options.include_usage
        events = ChatEvents(head, logprobs=asked.logprobs, usage=usage)
        return EventStream(events.of(all_of(first, chunks)), ticket, state.settings, arrived)


def _read(body: bytes, settings: Settings) -> tuple[ChatRequest, list[Message], SamplingParams]:
    """The request, its conversation and how it is to be answered. ApiError."""
    asked = parse_chat(parse_json(body))
    return asked, messages_of(asked, settings), params_of(asked, settings)


def _log_labels(asked: ChatRequest) -> None:
    """What a client calls its user: for whoever reads the log."""
    labels = {"user": asked.user, "safety_identifier": asked.safety_identifier, "metadata": asked.metadata}
    if any(labels.values()):
        log.info("chat for %r", {name: value for name, value in labels.items() if value})
