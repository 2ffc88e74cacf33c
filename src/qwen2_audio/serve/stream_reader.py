"""Reading a ticket on behalf of a client: while it is there, and until the deadline.

Few trips through the event loop for each piece: beside an engine that computes in the same process, each may cost
milliseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from typing import TypeVar

from starlette.requests import Request

from ..engine.request import Ticket, completions_of
from ..types import Chunk, Completion
from .errors import ApiError, ClientGoneError, as_api_error, shutting_down, too_slow
from .settings import Settings

T = TypeVar("T")


async def while_there(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`. When the client leaves, `work` is cancelled and ClientGoneError raised.

    The request's body must have been read: what the connection says next is that it is closed.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGoneError
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def disconnected(request: Request) -> None:
    """Returns when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def pieces(ticket: Ticket, settings: Settings) -> AsyncGenerator[Chunk, None]:
    """The ticket's chunks; leaving early cancels what runs.

    Raises ApiError for an answer that ends in anything but a finish.
    """
    try:
        async for chunk in ticket:
            if (error := failure_of(chunk, settings)) is not None:
                raise error
            yield chunk
    finally:
        if not ticket.done:
            ticket.cancel()


def failure_of(chunk: Chunk, settings: Settings) -> ApiError | None:
    """What the client is told where this piece ends an answer without finishing it."""
    if chunk.error is not None:
        return as_api_error(chunk.error, settings.retry)
    if chunk.finish_reason == "deadline":
        return too_slow(settings.deadline)
    return shutting_down(settings.retry) if chunk.finish_reason == "cancelled" else None


async def whole(chunks: AsyncGenerator[Chunk, None], answers: int) -> list[Completion]:
    """All answers of a request, complete."""
    found = [chunk async for chunk in chunks]
    return completions_of(found, answers)


async def first_of(chunks: AsyncGenerator[Chunk, None], request: Request, settings: Settings) -> asyncio.Future[Chunk]:
    """The first piece, so that a request which fails at once is an error and not a stream that holds one.

    Where it takes longer than a ping it is still to come: then the stream begins, as proxies lose patience. Raises
    what the piece raises, ClientGoneError where nobody waits any more; then `chunks` is closed.
    """
    first = asyncio.ensure_future(_next(chunks))
    gone = asyncio.ensure_future(disconnected(request))
    try:
        await asyncio.wait({first, gone}, timeout=settings.ping, return_when=asyncio.FIRST_COMPLETED)
        if first.done():
            first.result()
        elif gone.done():
            raise ClientGoneError
        return first
    except BaseException:
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await chunks.aclose()
        raise
    finally:
        gone.cancel()


async def _next(chunks: AsyncGenerator[Chunk, None]) -> Chunk:
    return await anext(chunks)
