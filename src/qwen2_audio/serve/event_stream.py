"""Server-sent events: chat chunks as OpenAI's clients take them, transcript events, and errors in the middle."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..engine.request import Ticket
from ..types import Chunk, Heard, Usage
from .answers import Head, delta_choice, usage_body
from .errors import ClientGoneError, as_api_error
from .settings import Settings

log = logging.getLogger(__name__)
DONE = b"data: [DONE]\n\n"
ALIVE = b": still working\n\n"  # a comment: clients skip it
_LAST_WORDS = 5.0  # s after a request's deadline, to say that it has passed
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # proxies are to pass pieces on at once


def event(body: Mapping[str, Any]) -> bytes:
    """One event."""
    return b"data: " + json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n\n"


class EventStream(Response):
    """A response that sends events as they come, and comments when there are none for long.

    When the client leaves, the ticket is cancelled: then its last piece ends the stream. A client that does not read
    holds its place until the request's deadline, and no longer: then the stream breaks off.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], ticket: Ticket, settings: Settings, arrived: float) -> None:
        """`arrived`: when the request did, by the clock of the event loop."""
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._events, self._ticket, self._ping = events, ticket, settings.ping
        self._end = arrived + settings.deadline + _LAST_WORDS
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
        aside: list[asyncio.Future[None]] = []
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            aside = [asyncio.ensure_future(self._watch(receive)), asyncio.ensure_future(self._keep_alive(send))]
            async for one in _guarded(self._events):
                await self._send(send, one)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            for task in aside:
                task.cancel()
            if not self._ticket.done:
                self._ticket.cancel()

    async def _send(self, send: Send, data: bytes) -> None:
        self._sent = asyncio.get_running_loop().time()
        await send({"type": "http.response.body", "body": data, "more_body": True})

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._ticket.cancel()

    async def _keep_alive(self, send: Send) -> None:
        while True:
            await asyncio.sleep(self._ping)
            if asyncio.get_running_loop().time() - self._sent >= self._ping:
                await self._send(send, ALIVE)


async def _guarded(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The events; an error becomes the last one."""
    try:
        async for one in events:
            yield one
    except Exception as error:
        yield event(as_api_error(error).body)


async def all_of(first: Awaitable[Chunk], rest: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
    """The pieces of a stream whose first one is waited for apart."""
    yield await first
    async for chunk in rest:
        yield chunk


class ChatEvents:
    """Turns the pieces of a chat answer into events: role, text, finish; then usage, if it was asked for."""

    def __init__(self, head: Head, *, logprobs: bool, usage: bool) -> None:
        self.head = head
        self.logprobs = logprobs
        self.usage = usage
        self._begun: set[int] = set()
        self._usages: list[Usage] = []

    async def of(self, chunks: AsyncIterator[Chunk]) -> AsyncIterator[bytes]:
        """The whole stream."""
        heard: Sequence[Heard] = ()
        async for chunk in chunks:
            heard = chunk.heard or heard
            yield self._events(chunk)
        if self.usage and self._usages:
            usage = usage_body(self._usages, heard)
            yield event(self.head.with_choices([], usage=usage))
        yield DONE

    def _events(self, chunk: Chunk) -> bytes:
        made = b""
        if chunk.index not in self._begun:
            self._begun.add(chunk.index)
            made += self._event(delta_choice(Chunk("", index=chunk.index), self._role, logprobs=False))
        if chunk.text or chunk.logprobs:
            made += self._event(delta_choice(chunk, {"content": chunk.text}, logprobs=self.logprobs))
        if chunk.finish_reason is not None:
            made += self._event(delta_choice(chunk, {}, logprobs=False, last=True))
            self._usages += [] if chunk.usage is None else [chunk.usage]
        return made

    _role = {"role": "assistant", "content": ""}  # noqa: RUF012  never changed

    def _event(self, choice: dict[str, Any]) -> bytes:
        return event(self.head.with_choices([choice], **({"usage": None} if self.usage else {})))
