"""The gateway of a server on Ray Serve: checks a request, reads it, and passes on what a replica of the model responds.

It holds the request until the first part of the response is there, so that a replica which dies before costs a second
try and nothing else. One that dies later ends a stream with an error event, exactly once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, cast

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Message, Receive, Scope, Send

from .app import cors
from .backend import Backend
from .bodies import FORM, content_type_of, read_body
from .errors import ApiError, as_api_error, busy, too_slow
from .event_stream import encode_event
from .long_audio import total_seconds
from .middleware import RequestMiddleware, route_path
from .ray_affinity import affinity_key
from .ray_replica import WholeRequest
from .settings import Settings
from .state import State
from .stream_reader import run_while_connected

log = logging.getLogger(__name__)
_TRIES = 2  # of a request whose replica dies before it has responded
_PROBE_SECONDS = 5.0  # that /ready and the page wait for a replica
_IN_THREAD = 64 << 10  # bytes; a larger body is read for its key in a thread, so that other requests need not wait
# Checked here, and meant for nobody else: a replica takes requests from gateways only.
_NOT_PASSED_ON = frozenset((b"authorization", b"origin", b"connection", b"content-encoding", b"content-length"))


class ReplicaLostError(Exception):
    """The replica that was to respond has died, or cannot be reached."""


class NoRoomError(Exception):
    """All replicas have as many requests as they may, and as many more wait as may."""


class Replicas(Protocol):
    """The replicas of the model, wherever they run."""

    def ask(self, key: str, request: WholeRequest) -> AsyncGenerator[list[Message], None]:
        """What the replica that `key` prefers responds. Raises ReplicaLostError, NoRoomError; closing it cancels."""

    async def metrics(self) -> Mapping[str, str]:
        """What /metrics of each replica says, by the replica's name."""


@dataclass(eq=False)
class _Relayed:
    """What the client got so far of one response."""

    send: Send
    seconds: float  # that its first part may take from the request's arrival
    end: float  # when these are over, by the event loop's clock
    start: Message | None = None  # held until there is a part of the body
    begun: bool = False  # whether anything was sent
    ended: bool = False

    async def pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.start = message
            return
        if not self.begun and self.start is not None:
            self.begun = True
            await self.send(self.start)
        self.ended = not message.get("more_body", False)
        await self.send(message)

    @property
    def is_stream(self) -> bool:
        headers = Headers(raw=list(self.start["headers"])) if self.start else Headers()
        return headers.get("content-type", "").startswith("text/event-stream")


class Gateway:
    """An ASGI application that passes requests on to `replicas`."""

    def __init__(self, replicas: Replicas, settings: Settings) -> None:
        self._replicas, self._settings = replicas, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1003, "reason": "Only HTTP is passed on to the replicas."})
            return
        request = Request(scope, receive)
        arrived = asyncio.get_running_loop().time()
        body = await read_body(request, self._settings) if scope["method"] == "POST" else b""
        content_type, path = request.headers.get("content-type", ""), route_path(scope)
        if len(body) > _IN_THREAD:
            key = await asyncio.to_thread(affinity_key, content_type, body, path)
        else:
            key = affinity_key(content_type, body, path)
        headers = [(name, value) for name, value in scope["headers"] if name.lower() not in _NOT_PASSED_ON]
        if body:
            headers.append((b"content-length", str(len(body)).encode()))
        forwarded = WholeRequest(scope["method"], path, scope["query_string"], tuple(headers), body)
        del body
        seconds = self._first_part_seconds(forwarded, content_type)
        await run_while_connected(request, self._relay(key, forwarded, _Relayed(send, seconds, arrived + seconds)))

    def _first_part_seconds(self, request: WholeRequest, content_type: str) -> float:
        """How long the first part of a response may take. A long clip is answered when all of it was heard; one that is
        asked about has "long" in its request."""
        if request.method != "POST":
            return _PROBE_SECONDS
        may_be_long = content_type_of(content_type) == FORM or b'"long"' in request.body
        return total_seconds(self._settings) if may_be_long else self._settings.deadline

    async def _relay(self, key: str, request: WholeRequest, relayed: _Relayed) -> None:
        """Passes on one response."""
        for tries_left in reversed(range(_TRIES)):
            try:
                await self._try(key, request, relayed)
                return
            except NoRoomError:
                raise busy("All replicas are busy; try again.", self._settings.retry, "queue_full") from None
            except ReplicaLostError as error:
                log.warning("%s %s: a replica was lost (%s); tries left: %d", request.method, request.path, error,
                            0 if relayed.begun else tries_left)  # fmt: skip
                if relayed.begun or not tries_left:
                    await self._say_lost(relayed)
                    return
                relayed.start = None

    async def _try(self, key: str, request: WholeRequest, relayed: _Relayed) -> None:
        async with aclosing(self._replicas.ask(key, request)) as responses:
            while True:
                try:
                    async with asyncio.timeout_at(None if relayed.begun else relayed.end):
                        messages = await anext(responses, None)
                except TimeoutError:
                    raise self._nobody_came(request, relayed.seconds) from None
                if messages is None:
                    break
                for message in messages:
                    await relayed.pass_on(message)
        if not relayed.ended:
            raise ReplicaLostError("it ended in the middle of its response")

    def _nobody_came(self, request: WholeRequest, seconds: float) -> ApiError:
        if request.method == "POST":
            return too_slow(seconds)
        return ApiError("No replica of the model is ready; try again.", status=503, code="not_ready",
                        headers={"Retry-After": str(self._settings.retry)})  # fmt: skip

    async def _say_lost(self, relayed: _Relayed) -> None:
        """Ends a response whose replica died. A body that is no stream of events can only be broken off."""
        error = ApiError(
            "The replica that answered this request died, and the answer is not complete; try again.",
            status=503,
            code="replica_lost",
            headers={"Retry-After": str(self._settings.retry)},
        )
        if relayed.ended:
            return
        if not relayed.begun or not relayed.is_stream:
            raise error
        await relayed.pass_on(
            {"type": "http.response.body", "body": encode_event(as_api_error(error).body), "more_body": False}
        )


@dataclass(eq=False)
class _NoModel:
    """Stands where a server in one process has its model."""

    name: str = ""

    def close(self, grace: float) -> None:
        """There is nothing to close: Ray Serve ends the replicas."""


@dataclass(eq=False)
class _Collected(Collector):
    """Metrics for prometheus_client to write."""

    metrics: Iterable[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.metrics


def merged(texts: Mapping[str, str]) -> bytes:
    """The metrics of all replicas in Prometheus' text format, each sample with the label `replica`."""
    metrics: dict[str, Metric] = {}
    for replica, text in sorted(texts.items()):
        for family in text_string_to_metric_families(text):
            into = metrics.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                into.samples.append(sample._replace(labels={**sample.labels, "replica": replica}))
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(metrics.values()))
    return generate_latest(registry)


def create_gateway(replicas: Replicas, settings: Settings) -> Starlette:
    """The application that clients see: the same access checks, limits and error bodies as a server in one process."""
    state = State(cast(Backend, _NoModel()), settings)

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def metrics(request: Request) -> Response:
        return Response(merged(await replicas.metrics()), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    app = Starlette(
        routes=[Route("/health", health), Route("/metrics", metrics), Mount("/", Gateway(replicas, settings))],
        middleware=[
            *cors(settings),
            Middleware(RequestMiddleware, state=state, paths=frozenset[str](), forms_on_disk=False),
        ],
    )
    app.state.server = state
    return app
