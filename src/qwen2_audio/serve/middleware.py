"""The middleware around every route: access checks, admission, error responses, and one log line per request.

It is plain ASGI, so that streams and disconnects pass through unchanged.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
import uuid
from contextlib import suppress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .bodies import FORM, check_length, content_type_of
from .errors import ApiError, ClientGoneError, as_api_error, respond
from .state import RESERVATION, State

log = logging.getLogger(__name__)
_GONE = 499  # nginx's status for a client that disconnected before a response began
_DRAIN_SECONDS = 5.0
_PROBES = frozenset(("/health", "/ready"))
_OPEN = _PROBES | {"/", "/version"}  # these and the page's files need no key; every other path does
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")


class RequestMiddleware:
    """Wraps the whole application."""

    def __init__(self, app: ASGIApp, state: State, paths: frozenset[str], *, forms_on_disk: bool = True) -> None:
        """`paths`: those that are counted by name; all others are counted as "other". `forms_on_disk`: else a form is
        held in memory, and has the limit of every other body."""
        self._app = app
        self._state = state
        self._paths = paths
        self._forms_on_disk = forms_on_disk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = _without_trailing_slash(scope)
        record = _RequestRecord(scope)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = record.id
            await send(message)

        try:
            await self._check_and_call(record.path, scope, receive, send_with_id)
        except ClientGoneError:
            pass
        except Exception as error:
            if record.status != _GONE:  # a response has begun, so the connection can only be broken off
                raise
            refusal = as_api_error(error, self._state.settings.retry)
            if refusal.code == "body_too_large":  # only this client may still be sending
                await self._drain(receive)
            await respond(refusal)(scope, receive, send_with_id)
        finally:
            self._log(record)

    async def _check_and_call(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        if path not in _PROBES:  # load balancers ask by address; these two paths reveal nothing
            self._check_host(headers)
        if not _is_open(path) and scope["method"] != "OPTIONS":
            self._check_origin(headers)
            self._check_key(headers)
        if scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        with self._state.admit(*self._max_body_bytes(headers)) as reservation:
            scope[RESERVATION] = reservation
            await self._app(scope, receive, send)

    def _check_host(self, headers: Headers) -> None:
        """Refuses foreign host names: a web page whose name was pointed at this machine would count as our own page."""
        allowed = self._state.settings.hosts
        host = _host_of(headers.get("host", ""))
        if allowed and host not in allowed:
            raise ApiError(
                f"This server does not answer to the host name {host[:100]!r}; expected {', '.join(allowed)}.",
                status=403,
                code="wrong_host",
            )

    def _check_origin(self, headers: Headers) -> None:
        """Refuses web pages of other origins, which browsers name in the header, unless the settings allow them."""
        origin, allowed = headers.get("origin"), self._state.settings.origins
        if origin is None or origin in allowed or "*" in allowed:
            return
        try:
            same = _authority(urlsplit(origin).netloc) == _authority(headers.get("host", ""))
        except ValueError:
            same = False
        if not same:
            raise ApiError(
                "Web pages of this origin may not send requests to this server.", status=403, code="wrong_origin"
            )

    def _check_key(self, headers: Headers) -> None:
        """Refuses a wrong key. The comparison takes constant time, so that timing does not reveal parts of a key."""
        keys = self._state.settings.api_keys
        if not keys:
            return
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        sent_key = credentials.strip().encode()
        matches = [hmac.compare_digest(sent_key, key.encode()) for key in keys]
        if scheme.lower() != "bearer" or not any(matches):
            raise ApiError(
                "The API key is missing or wrong; expected the header 'Authorization: Bearer KEY'.",
                status=401,
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def _drain(self, receive: Receive) -> None:
        """Reads and drops the rest of a body for a while: many clients send all of it before they read a response."""
        bytes_left = 4 * self._state.settings.body_bytes
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while bytes_left > 0:
                    message = await receive()
                    bytes_left -= len(message.get("body", b""))
                    if not message.get("more_body", False):
                        return

    def _max_body_bytes(self, headers: Headers) -> tuple[int, int]:
        """Upper bounds of what the body takes of memory, and of the disk, where forms wait: by the Content-Length, or
        the limit of a body that has none or is compressed. ApiError (413) above the limit."""
        settings = self._state.settings
        is_form = self._forms_on_disk and content_type_of(headers.get("content-type", "")) == FORM
        limit = settings.upload_bytes if is_form else settings.body_bytes
        content_length = headers.get("content-length", "")
        size = limit
        if content_length.isdecimal():
            check_length(int(content_length[:20]), limit)
            size = int(content_length[:20]) if headers.get("content-encoding", "identity") == "identity" else limit
        return (min(size, settings.clip_bytes), size) if is_form else (size, 0)

    def _log(self, record: _RequestRecord) -> None:
        route = record.path if record.path in self._paths else "other"
        self._state.served[route, record.status] += 1
        if not _is_open(record.path):
            seconds = time.monotonic() - record.started
            log.info("%s %r %s %.3fs %s", record.method, record.path, record.status, seconds, record.id)


class _RequestRecord:
    """What is logged of one request."""

    def __init__(self, scope: Scope) -> None:
        self.id = f"req_{uuid.uuid4().hex}"
        self.method = scope["method"]
        self.path = route_path(scope)
        self.started = time.monotonic()
        self.status = _GONE


def route_path(scope: Scope) -> str:
    """The path as the router sees it: without the prefix that the application is mounted below."""
    path: str = scope["path"]
    below = path.removeprefix(scope.get("root_path", ""))
    return below if below.startswith("/") or not below else path


def _without_trailing_slash(scope: Scope) -> Scope:
    """ "/v1/models/" is "/v1/models": a redirect would name this server's address and not the proxy's."""
    path = route_path(scope)
    surplus = len(path) - len(path.rstrip("/"))
    if not surplus or not path.strip("/") or path.startswith("/static/"):
        return scope
    return {**scope, "path": scope["path"][:-surplus]}


def _is_open(path: str) -> bool:
    return path in _OPEN or path.startswith("/static/")


def _host_of(header: str) -> str:
    """The host without its port: "::1" for "[::1]:8000"."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower().rstrip(".")


def _authority(header: str) -> str:
    """Host and port as browsers write them in an Origin: in lower case, without the default ports."""
    lower = header.lower()
    return lower.removesuffix(":443").removesuffix(":80")
