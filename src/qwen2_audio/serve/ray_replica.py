"""One replica of the server on Ray Serve: the application of `app.py`, called with whole requests, not on a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Scope

_END_SECONDS = 10.0  # that a request which was given up has to end


@dataclass(frozen=True)
class WholeRequest:
    """An HTTP request with its body, as the gateway hands it to a replica in another process."""

    method: str
    path: str
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes = b""

    @property
    def scope(self) -> Scope:
        """The request for an ASGI application."""
        return {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
            "method": self.method, "scheme": "http", "path": self.path, "raw_path": self.path.encode(),
            "query_string": self.query, "root_path": "", "headers": list(self.headers), "client": None, "server": None,
        }  # fmt: skip


async def respond(app: ASGIApp, request: WholeRequest) -> AsyncIterator[list[Message]]:
    """What `app` sends in response, as ASGI messages; those that are ready at the same time come together.

    If the caller closes the iterator early, `app` is told that the client has disconnected.
    """
    sent: list[Message] = []
    changed, given_up = asyncio.Event(), asyncio.Event()
    unread = [request.body]

    async def receive() -> Message:
        if unread:
            return {"type": "http.request", "body": unread.pop(), "more_body": False}
        await given_up.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)
        changed.set()

    async def call() -> None:
        await app(request.scope, receive, send)

    running = asyncio.ensure_future(call())
    running.add_done_callback(lambda _: changed.set())
    try:
        while sent or not running.done():
            if sent:
                messages = sent.copy()
                sent.clear()
                yield messages
            else:
                changed.clear()
                await changed.wait()
        running.result()  # an error after the response had begun: the caller breaks the connection off, as uvicorn does
    finally:
        given_up.set()
        with suppress(Exception):
            await asyncio.wait_for(asyncio.shield(running), _END_SECONDS)
