"""Reads the chunks of a request for a client, as long as the client is connected and the deadline has not passed.

Each chunk takes as few turns of the event loop as possible: the engine computes in the same process, and while it
does, one turn may cost milliseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Sequence
from typing import TypeVar

from starlette.requests import Request

from ..engine.request import RequestHandle, completions_of
from ..types import Chunk, Completion
from .errors import ApiError, ClientGoneError, as_api_error, shutting_down, too_slow
from .settings import Settings

T = TypeVar("T")


async def run_while_connected(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`. If the client disconnects first, cancels `work` and raises ClientGoneError.

    Call this only after the request's body has been read: the next message of the connection must be the disconnect.
    """
    task = asyncio.ensure_future(work)
    disconnect = asyncio.ensure_future(wait_for_disconnect(request))
    try:
        await asyncio.wait({task, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGoneError
    finally:
        disconnect.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def wait_for_disconnect(request: Request) -> None:
    """Returns when the client has disconnected."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def stream(
    handle: RequestHandle, settings: Settings, clip_params: Sequence[str] = ()
) -> AsyncGenerator[Chunk, None]:
    """The request's chunks. Closing the generator early cancels the request.

    Raises ApiError if an answer ends without a finish: by an error, a passed deadline or a cancellation.
    """
    try:
        async for chunk in handle:
            if (error := error_of(chunk, settings, clip_params)) is not None:
                raise error
            yield chunk
    finally:
        if not handle.done:
            handle.cancel()


def error_of(chunk: Chunk, settings: Settings, clip_params: Sequence[str] = ()) -> ApiError | None:
    """The error to send to the client if `chunk` ends an answer without a finish; otherwise None."""
    if chunk.error is not None:
        return as_api_error(chunk.error, settings.retry, clip_params)
    if chunk.finish_reason == "deadline":
        return too_slow(settings.deadline)
    return shutting_down(settings.retry) if chunk.finish_reason == "cancelled" else None


async def collect(chunks: AsyncGenerator[Chunk, None], num_answers: int) -> list[Completion]:
    """All answers of a request, complete, in the order of their index."""
    return completions_of([chunk async for chunk in chunks], num_answers)


async def wait_for_first_chunk(
    chunks: AsyncGenerator[Chunk, None], request: Request, settings: Settings
) -> asyncio.Future[Chunk]:
    """The first chunk, awaited before the stream starts: a request that fails at once gets an error status this way.

    After `settings.ping` seconds the future is returned still pending: the stream must start then, because proxies
    close connections that stay silent. Closes `chunks` and raises what the first chunk raised, or ClientGoneError if
    the client has disconnected.
    """
    first = asyncio.ensure_future(_next(chunks))
    disconnect = asyncio.ensure_future(wait_for_disconnect(request))
    try:
        await asyncio.wait({first, disconnect}, timeout=settings.ping, return_when=asyncio.FIRST_COMPLETED)
        if first.done():
            first.result()
        elif disconnect.done():
            raise ClientGoneError
        return first
    except BaseException:
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await chunks.aclose()
        raise
    finally:
        disconnect.cancel()


async def _next(chunks: AsyncGenerator[Chunk, None]) -> Chunk:
    return await anext(chunks)
