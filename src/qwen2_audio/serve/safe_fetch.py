"""Fetches a clip from an http(s) URL within the policy. It connects only to addresses that were checked (no SSRF)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import SplitResult, urlsplit

import h11

from ..audio.urls import browser_url, redirect_target
from .addresses import check_host, resolve
from .errors import ApiError
from .settings import FetchPolicy

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
_BLOCK = 1 << 16  # bytes


@dataclass(frozen=True)
class _Hop:
    """One URL of a chain of redirects."""

    url: str
    parts: SplitResult
    host: str
    port: int

    @property
    def target(self) -> bytes:
        path, query = self.parts.path or "/", self.parts.query
        return f"{path}?{query}".encode() if query else path.encode()

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.parts.scheme] else f"{host}:{self.port}"


async def fetch(url: str, policy: FetchPolicy, limit: int, reserve: Callable[[int], None]) -> bytes:
    """The body of `url`, at most `limit` bytes. ApiError (400) if it cannot be had; it quotes nothing of the response.

    `reserve` is called with the size of each block that arrives, and raises if memory is short.
    """
    if not policy.web:
        raise _refused(
            "This server fetches no clips from the web; send the clip itself, as input_audio or a data: URL."
        )
    try:
        async with asyncio.timeout(policy.seconds):
            for _ in range(policy.redirects + 1):
                hop = _hop_of(url)
                check_host(hop.host, policy)
                body_or_location = await _get(hop, policy, limit, reserve)
                if isinstance(body_or_location, bytes):
                    return body_or_location
                url = _target(url, body_or_location)
    except TimeoutError as error:
        raise _refused(f"The clip at {_short(url)} did not arrive within {policy.seconds:g} s.") from error
    except (OSError, ssl.SSLError, h11.ProtocolError, EOFError) as error:
        raise _refused(f"The clip at {_short(url)} could not be fetched: {_reason(error)}.") from error
    raise _refused(f"The clip's URL redirects more than {policy.redirects} times; give the last address itself.")


def _hop_of(url: str) -> _Hop:
    if url.strip().partition(":")[0].lower() not in _PORTS:
        raise _refused(f"{_short(url)} is not an http or https URL, and nothing else is fetched.")
    try:
        parts = urlsplit(browser_url(url))
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError as error:
        raise _refused(f"{_short(url)} is not a URL: {error}.") from error
    if not host:
        raise _refused(f"{_short(url)} is not a URL: it names no host.")
    if parts.username is not None or parts.password is not None:
        raise _refused("The clip's URL holds a user name or password; give one without.")
    return _Hop(url, parts, host, _PORTS[parts.scheme] if port is None else port)


def _target(url: str, location: str) -> str:
    """The URL that a redirect from `url` names."""
    try:
        return redirect_target(url, location)
    except ValueError as error:
        raise _refused(f"The clip's URL redirects to {_short(location)}, which is not a URL: {error}.") from error


async def _get(hop: _Hop, policy: FetchPolicy, limit: int, reserve: Callable[[int], None]) -> bytes | str:
    """The body, or the URL that the response redirects to."""
    async with _connect(hop, policy) as (reader, writer):
        connection = h11.Connection(h11.CLIENT)
        headers = [("Host", hop.authority), ("User-Agent", "qwen2-audio"), ("Accept", "audio/*, */*;q=0.8")]
        request = h11.Request(method="GET", target=hop.target, headers=[*headers, ("Connection", "close")])
        writer.write((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
        await writer.drain()
        response = await _next(connection, reader)
        while isinstance(response, h11.InformationalResponse):
            response = await _next(connection, reader)
        assert isinstance(response, h11.Response)
        fields = {name: value.decode("latin-1") for name, value in response.headers}
        if response.status_code in _REDIRECTS and b"location" in fields:
            return fields[b"location"]
        if response.status_code != 200:
            raise _refused(f"The clip at {_short(hop.url)} could not be fetched: HTTP {response.status_code}.")
        _check_size(int(fields.get(b"content-length", "0")), limit, hop.url)
        body = bytearray()
        while isinstance(event := await _next(connection, reader), h11.Data):
            _check_size(len(body) + len(event.data), limit, hop.url)
            reserve(len(event.data))
            body += event.data
        return bytes(body)


@asynccontextmanager
async def _connect(hop: _Hop, policy: FetchPolicy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to one of the host's checked addresses. With TLS, the certificate must be for the host's name."""
    secure: dict[str, Any] = {"ssl": _tls(), "server_hostname": hop.host} if hop.parts.scheme == "https" else {}
    failure: OSError | None = None
    for address in await resolve(hop.host, hop.port, policy):
        try:
            reader, writer = await asyncio.open_connection(address, hop.port, **secure)
        except OSError as error:
            failure = error
            continue
        try:
            yield reader, writer
        finally:
            writer.transport.abort()  # close() could wait for the other side for ever
        return
    raise failure or OSError("it has no address")


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()  # cached: reading the system's certificates takes 20 ms


async def _next(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Event:
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await reader.read(_BLOCK))
    if not isinstance(event, h11.Event) or isinstance(event, h11.ConnectionClosed):
        raise EOFError
    return event


def _check_size(size: int, limit: int, url: str) -> None:
    if size > limit:
        raise _refused(f"The clip at {_short(url)} is larger than {limit:,} bytes, the limit for a clip.")


def _reason(error: BaseException) -> str:
    if isinstance(error, ssl.SSLError):
        return "its certificate or its TLS is not in order"
    if isinstance(error, EOFError | h11.ProtocolError):
        return "the other side broke off, or does not speak HTTP"
    return "its host does not answer"


def _short(url: str) -> str:
    return repr(url if len(url) <= 120 else url[:120] + "...")


def _refused(message: str) -> ApiError:
    return ApiError(message, code="invalid_audio_url")
