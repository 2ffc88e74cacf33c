"""What every request passes before and after its route: may it ask, is there room, what is written down of it.

Plain ASGI, so that streams and disconnects pass through untouched.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
import uuid
from contextlib import suppress
from urllib.parse import urlsplit

from starlette._utils import get_route_path
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .bodies import check_length
from .errors import ApiError, ClientGoneError, as_api_error, respond
from .state import PLACE, State

log = logging.getLogger(__name__)
_GONE = 499  # nginx's number for a client that left before an answer began
_DRAIN_SECONDS = 5.0
_PROBES = frozenset(("/health", "/ready"))
_OPEN = _PROBES | {"/", "/version"}  # and what the page is made of; everything else needs the key
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")


class Gate:
    """Wraps the whole application."""

    def __init__(self, app: ASGIApp, state: State, paths: frozenset[str]) -> None:
        """`paths` are those that the log of requests tells apart."""
        self._app = app
        self._state = state
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = _Record(scope)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = record.id
            await send(message)

        try:
            await self._pass(record.path, scope, receive, sending)
        except ClientGoneError:
            pass
        except Exception as error:
            if record.status != _GONE:  # an answer has begun: all that is left is to break it off
                raise
            refusal = as_api_error(error, self._state.settings.retry)
            if refusal.code == "body_too_large":  # any other time it has arrived, and waiting would be for nothing
                await self._drain(receive)
            await respond(refusal)(scope, receive, sending)
        finally:
            self._note(record)

    async def _pass(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        if path not in _PROBES:  # load balancers ask by address, and nothing is told there
            self._check_host(headers)
        if not _is_open(path) and scope["method"] != "OPTIONS":
            self._check_origin(headers)
            self._check_key(headers)
        if scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        with self._state.place(self._length(headers)) as place:
            scope[PLACE] = place
            await self._app(scope, receive, send)

    def _check_host(self, headers: Headers) -> None:
        """A web page whose name was pointed at this machine must not be able to ask as if it were ours."""
        allowed = self._state.settings.hosts
        host = _host_of(headers.get("host", ""))
        if allowed and host not in allowed:
            raise ApiError(
                f"This server does not answer to the host name {host[:100]!r}; expected {', '.join(allowed)}.",
                status=403,
                code="wrong_host",
            )

    def _check_origin(self, headers: Headers) -> None:
        """Browsers say which page asks; pages of others may not, unless they are named."""
        origin, allowed = headers.get("origin"), self._state.settings.origins
        if origin is None or origin in allowed or "*" in allowed:
            return
        try:
            same = urlsplit(origin).netloc == headers.get("host")
        except ValueError:
            same = False
        if not same:
            raise ApiError("Web pages of this origin may not ask here.", status=403, code="wrong_origin")

    def _check_key(self, headers: Headers) -> None:
        """The key, in a time that does not tell how much of it was right."""
        keys = self._state.settings.api_keys
        if not keys:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        said = given.strip().encode()
        right = [hmac.compare_digest(said, key.encode()) for key in keys]
        if scheme.lower() != "bearer" or not any(right):
            raise ApiError(
                "The API key is missing or wrong; expected the header 'Authorization: Bearer KEY'.",
                status=401,
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def _drain(self, receive: Receive) -> None:
        """Read on for a while: many clients send all of a body before they look for an answer."""
        left = 4 * self._state.settings.body_bytes
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while left > 0:
                    message = await receive()
                    left -= len(message.get("body", b""))
                    if not message.get("more_body", False):
                        return

    def _length(self, headers: Headers) -> int:
        """Bytes that the body may have."""
        most, said = self._state.settings.body_bytes, headers.get("content-length", "")
        if not said.isdecimal():
            return most
        check_length(int(said[:20]), self._state.settings)
        return int(said[:20])

    def _note(self, record: _Record) -> None:
        route = record.path if record.path in self._paths else "other"
        self._state.served[route, record.status] += 1
        if not _is_open(record.path):
            seconds = time.monotonic() - record.started
            log.info("%s %r %s %.3fs %s", record.method, record.path, record.status, seconds, record.id)


class _Record:
    """One request, for the log."""

    def __init__(self, scope: Scope) -> None:
        self.id = f"req_{uuid.uuid4().hex}"
        self.method = scope["method"]
        self.path = get_route_path(scope)  # as the router sees it: without what the application is mounted below
        self.started = time.monotonic()
        self.status = _GONE


def _is_open(path: str) -> bool:
    return path in _OPEN or path.startswith("/static/")


def _host_of(header: str) -> str:
    """The host without its port: "[::1]:8000" is "::1"."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()
