"""Responses as server-sent events: chat chunks in OpenAI's form, keep-alive comments, and errors after the start."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..engine.request import RequestHandle
from ..types import Chunk, Heard, Usage
from .answers import Envelope, delta_choice, running_usage, usage_body
from .errors import ClientGoneError, as_api_error
from .settings import Settings

log = logging.getLogger(__name__)
DONE = b"data: [DONE]\n\n"
ALIVE = b": still working\n\n"  # a comment, which clients skip
_AFTER_DEADLINE = 5.0  # s that a stream may go on after its deadline, to send the error
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # tells proxies not to buffer


def encode_event(body: Mapping[str, Any]) -> bytes:
    """`body` as one server-sent event."""
    return b"data: " + json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n\n"


class EventStream(Response):
    """A response that sends events as they come, and a comment whenever none has been sent for `settings.ping` seconds.

    If the client disconnects, the request is cancelled, and its terminal chunk ends the stream. If the client does not
    read, the stream is broken off shortly after the request's deadline, which frees the request's reservation.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], handle: RequestHandle, settings: Settings, arrived: float) -> None:
        """`arrived`: the request's arrival by the event loop's clock, in seconds."""
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._events, self._handle, self._ping = events, handle, settings.ping
        self._end = arrived + settings.deadline + _AFTER_DEADLINE
        self._sent = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout_at(self._end) as limit:
                await self._run(receive, send)
        except TimeoutError:
            if not limit.expired():
                raise
            log.warning("A stream was broken off after its deadline: its client does not read.")
            raise ClientGoneError from None

    async def _run(self, receive: Receive, send: Send) -> None:
        background: list[asyncio.Future[None]] = []
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            background = [asyncio.ensure_future(self._watch(receive)), asyncio.ensure_future(self._keep_alive(send))]
            async for event in _errors_as_events(self._events):
                await self._send(send, event)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            for task in background:
                task.cancel()
            if not self._handle.done:
                self._handle.cancel()

    async def _send(self, send: Send, data: bytes) -> None:
        self._sent = asyncio.get_running_loop().time()
        await send({"type": "http.response.body", "body": data, "more_body": True})

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._handle.cancel()

    async def _keep_alive(self, send: Send) -> None:
        while True:
            await asyncio.sleep(self._ping)
            if asyncio.get_running_loop().time() - self._sent >= self._ping:
                await self._send(send, ALIVE)


async def _errors_as_events(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """`events`; if they raise an error, it is the last event."""
    try:
        async for event in events:
            yield event
    except Exception as error:
        yield encode_event(as_api_error(error).body)


async def prepend(first: Awaitable[Chunk], rest: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
    """`first`, which is awaited, and then the chunks of `rest`."""
    yield await first
    async for chunk in rest:
        yield chunk


class ChatEvents:
    """Encodes chunks of chat answers as events: role, text, finish; at the end usage, if the request asks for it."""

    def __init__(
        self,
        envelope: Envelope,
        *,
        logprobs: bool,
        usage: bool,
        running: RequestHandle | None = None,
        echo: str = "",
    ) -> None:
        """`running`: the request, whose usage so far is in every event. `echo`: text that stands before each answer."""
        self.envelope = envelope
        self.logprobs = logprobs
        self.usage = usage or running is not None
        self._running = running
        self._role: dict[str, str | None] = {"role": "assistant", "content": echo}
        self._tokens: dict[int, int] = {}  # of each answer so far
        self._started: set[int] = set()  # indices of answers whose role was sent
        self._usages: list[Usage] = []

    async def encode(self, chunks: AsyncIterator[Chunk]) -> AsyncIterator[bytes]:
        """The events of the whole stream."""
        heard: Sequence[Heard] = ()
        async for chunk in chunks:
            heard = chunk.heard or heard
            yield self._events(chunk)
        if self.usage and self._usages:
            usage = usage_body(self._usages, heard)
            yield encode_event(self.envelope.with_choices([], usage=usage))
        yield DONE

    def _events(self, chunk: Chunk) -> bytes:
        events = b""
        if chunk.index not in self._started:
            self._started.add(chunk.index)
            events += self._event(delta_choice(Chunk("", index=chunk.index), self._role, logprobs=False))
        self._count(chunk)
        if chunk.part is not None:
            events += self._event(delta_choice(chunk, {}, logprobs=False), part=chunk.part.to_dict())
        logprobs = self.logprobs
        for delta in self._deltas(chunk):
            events += self._event(delta_choice(chunk, delta, logprobs=logprobs))
            logprobs = False  # they are told once
        if chunk.finish_reason is not None:
            events += self._event(self._last_choice(chunk))
            self._usages += [] if chunk.usage is None else [chunk.usage]
        return events

    def _deltas(self, chunk: Chunk) -> list[dict[str, Any]]:
        """What `chunk` adds to the message."""
        return [{"content": chunk.text}] if chunk.text or chunk.logprobs else []

    def _last_choice(self, chunk: Chunk) -> dict[str, Any]:
        return delta_choice(chunk, {}, logprobs=False, last=True)

    def _count(self, chunk: Chunk) -> None:
        tokens = chunk.num_tokens if chunk.usage is None else chunk.usage.completion_tokens
        self._tokens[chunk.index] = max(tokens, self._tokens.get(chunk.index, 0))

    def _event(self, choice: dict[str, Any], **more: Any) -> bytes:
        if self._running is not None:
            more["usage"] = running_usage(self._running.prompt_usage, sum(self._tokens.values()))
        elif self.usage:
            more["usage"] = None
        return encode_event(self.envelope.with_choices([choice], **more))
