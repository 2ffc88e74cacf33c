"""POST /v1/chat/completions."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...types import Message, SamplingParams
from ..answers import Envelope, completion_body
from ..bodies import read_json
from ..convert import clip_params, echo_of, ending_of, long_of, messages_of, params_of
from ..event_stream import ChatEvents, EventStream, prepend
from ..long_questions import long_question
from ..media import fetch_links, links_of
from ..models import served_model
from ..protocol import ChatRequest, StreamOptions, parse_chat
from ..settings import Settings
from ..state import RESERVATION, Reservation, State
from ..stream_reader import collect, run_while_connected, stream, wait_for_first_chunk
from ..structured import check_constraint, constraint_of
from ..tool_events import ToolEvents
from ..tools import tool_use_of

log = logging.getLogger(__name__)


class ChatRoutes:
    """Answers chat requests."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def complete(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        state, arrived = self._state, asyncio.get_running_loop().time()
        chat, messages, params = await read_json(request, state.settings, _converted, slow=_has_tools)
        policy = None if chat.long == "refuse" else long_of(chat)
        model = await served_model(state, chat.model)
        if params.constraint is not None:
            await asyncio.to_thread(check_constraint, params, constraint_of(chat)[1] or "tools")
        _log_labels(chat)
        if links := links_of(messages):
            reservation: Reservation = request.scope[RESERVATION]
            await run_while_connected(request, fetch_links(links, state.settings, reservation.reserve))
        use, ending, echo = tool_use_of(chat), ending_of(chat), echo_of(chat, messages)
        clips = clip_params(chat.messages)
        if policy is None or (long := await long_question(model, chat, messages, params, policy)) is None:
            handle, chunks = model.submit(messages, params, arrived, chat.priority, clips, ending=ending)
        else:
            handle, chunks = long, stream(long, state.settings, clips)
            arrived += state.settings.clip_seconds  # the deadline is each part's
        envelope = Envelope(model.name, "chat.completion.chunk" if chat.stream else "chat.completion")
        if not chat.stream:
            async with aclosing(chunks):
                answers = await run_while_connected(request, collect(chunks, handle.answers))
            return JSONResponse(completion_body(envelope, answers, logprobs=chat.logprobs, use=use, echo=echo))
        first = await wait_for_first_chunk(chunks, request, state.settings)
        asked = chat.stream_options or StreamOptions()
        running = handle if asked.continuous_usage_stats else None
        options: dict[str, Any] = {"logprobs": chat.logprobs, "usage": asked.include_usage, "running": running}
        events = ChatEvents(envelope, **options, echo=echo) if use is None else ToolEvents(envelope, use, **options)
        return EventStream(events.encode(prepend(first, chunks)), handle, state.settings, arrived)


def _converted(fields: Any, settings: Settings) -> tuple[ChatRequest, list[Message], SamplingParams]:
    """The request, its messages and its sampling parameters. ApiError for a field that is wrong."""
    chat = parse_chat(fields)
    return chat, messages_of(chat, settings), params_of(chat, settings)


def _has_tools(fields: Any) -> bool:
    """Their schemas are compiled, to know whether they can be honoured."""
    return isinstance(fields, dict) and bool(fields.get("tools"))


def _log_labels(chat: ChatRequest) -> None:
    """Logs the names that the client gives its user and its request."""
    labels = {"user": chat.user, "safety_identifier": chat.safety_identifier, "metadata": chat.metadata}
    if any(labels.values()):
        log.info("chat for %r", {name: value for name, value in labels.items() if value})
