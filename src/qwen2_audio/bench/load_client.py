"""As much HTTP as `bench load` needs, from the standard library: a connection for each request, events as they come.

A client library would take milliseconds of its own from the cores that the server runs on.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..errors import ConfigError, Qwen2AudioError

SHOWN_CHARACTERS = 300  # of an error's body


class HttpError(Qwen2AudioError):
    """A response that is no answer. `kind` says in a word or two what went wrong, the same for all such errors."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Endpoint:
    """Where the API is."""

    host: str
    port: int
    secure: bool
    path: str  # before /v1
    api_key: str | None = None

    @classmethod
    def of(cls, url: str, api_key: str | None = None) -> Endpoint:
        """From a URL, with or without /v1 at its end. Raises ConfigError for what is no URL."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"url is {url!r}; expected http://HOST:PORT or https://HOST.")
        path, secure = parts.path.rstrip("/").removesuffix("/v1"), parts.scheme == "https"
        return cls(parts.hostname, parts.port or (443 if secure else 80), secure, path, api_key)

    def head(self, method: str, path: str, length: int) -> bytes:
        """A request's first lines."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = [
            f"{method} {self.path}{path} HTTP/1.1",
            f"Host: {host}:{self.port}",
            "Connection: close",
            "Accept: text/event-stream, application/json, text/plain",
            f"Content-Length: {length}",
            *(["Content-Type: application/json"] if length else []),
            *([f"Authorization: Bearer {self.api_key}"] if self.api_key else []),
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def get(endpoint: Endpoint, path: str) -> bytes:
    """The body at `path`. Raises HttpError, OSError."""
    async with _exchange(endpoint, "GET", path, b"") as pieces:
        return b"".join([piece async for piece in pieces])


async def events(endpoint: Endpoint, path: str, body: bytes) -> AsyncIterator[dict[str, Any]]:
    """The events of a streamed answer, up to "[DONE]". Raises HttpError, OSError."""
    async with _exchange(endpoint, "POST", path, body) as pieces:
        rest = b""
        async for piece in pieces:
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if not line.startswith(b"data:"):
                    continue
                data = line[5:].strip()
                if data == b"[DONE]":
                    return
                event = json.loads(data)
                if event.get("error"):
                    raise HttpError("error event", str(event["error"])[:SHOWN_CHARACTERS])
                yield event
    raise HttpError("cut off", "the stream ended without [DONE]")


@asynccontextmanager
async def _exchange(endpoint: Endpoint, method: str, path: str, body: bytes) -> AsyncIterator[AsyncIterator[bytes]]:
    """Send a request; the pieces of the response's body. Raises HttpError for a status that is not 200."""
    context = ssl.create_default_context() if endpoint.secure else None
    reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port, ssl=context)
    try:
        writer.write(endpoint.head(method, path, len(body)) + body)
        await writer.drain()
        status, headers = await _response_head(reader)
        pieces = _body(reader, headers)
        if status != 200:
            text = b"".join([piece async for piece in pieces]).decode("utf-8", "replace")
            raise HttpError(f"HTTP {status}", text[:SHOWN_CHARACTERS])
        yield pieces
    finally:
        writer.close()


async def _response_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    first = (await reader.readline()).split(None, 2)
    if len(first) < 2 or not first[0].startswith(b"HTTP/1.") or not first[1].isdigit():
        raise HttpError("not HTTP", f"the response began with {first!r}" if first else "the connection was closed")
    headers: dict[str, str] = {}
    while line := (await reader.readline()).strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip().lower()
    return int(first[1]), headers


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[bytes]:
    """What comes after the head: in chunks, of a known length, or up to the connection's end."""
    if headers.get("transfer-encoding") == "chunked":
        while size := int((await reader.readline()).split(b";")[0].strip() or b"0", 16):
            yield await reader.readexactly(size)
            await reader.readexactly(2)
        return
    remaining = int(headers["content-length"]) if "content-length" in headers else None
    while remaining is None or remaining > 0:
        piece = await reader.read(1 << 16)
        if not piece:
            return
        remaining = None if remaining is None else remaining - len(piece)
        yield piece
