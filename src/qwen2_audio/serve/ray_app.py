"""The server on Ray Serve: any number of replicas of the model behind gateways that clients see as one server.

    serve run qwen2_audio.serve.ray_app:build model=nano replicas=2

A RayService file names the same function with the same arguments (deploy/rayservice.yaml), and `qwen2-audio serve
--ray` calls it. Nothing but this package has to be installed on the machines of the cluster.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..distributed.ray_cluster import connected, import_ray, import_serve
from .ray_gateway import NoRoomError, ReplicaLostError, create_gateway
from .ray_plan import Plan, plan_of
from .ray_replica import WholeRequest, respond
from .ray_router import PATH
from .run import Address

NAME = "qwen2-audio"  # of the application in Ray Serve
KEY_VARIABLE = "QWEN2_AUDIO_API_KEY"
_METRICS_SECONDS = 5.0  # that a replica has to say its metrics
_CLEANUP_SECONDS = 5.0  # beyond the grace of running answers


def build(args: Mapping[str, Any] | None = None) -> Any:
    """The application for Ray Serve. ConfigError for an argument that it does not have, or that cannot work."""
    return application(plan_of(args or {}))


def application(plan: Plan) -> Any:
    """The application of a plan: the gateway's deployment, bound to the model's."""
    serve = import_serve()
    settings = plan.settings
    if plan.max_replicas is None:
        number: dict[str, Any] = {"num_replicas": plan.replicas}
    else:
        bounds = {"min_replicas": plan.replicas, "max_replicas": plan.max_replicas}
        number = {"autoscaling_config": {**bounds, "target_ongoing_requests": plan.target_requests}}
    model = serve.deployment(
        ModelReplica,
        name="Model",
        ray_actor_options={"num_cpus": plan.cpus, "num_gpus": plan.gpus},
        max_ongoing_requests=settings.concurrency,
        max_queued_requests=settings.concurrency,
        graceful_shutdown_timeout_s=settings.grace + _CLEANUP_SECONDS,
        request_router_config=serve.config.RequestRouterConfig(request_router_class=PATH),
        **number,
    )
    gateway = serve.deployment(
        GatewayReplica,
        name="Gateway",
        num_replicas=plan.gateways,
        ray_actor_options={"num_cpus": 0},  # a replica may need all cores that the cluster has left
        max_ongoing_requests=settings.connections,
        graceful_shutdown_timeout_s=settings.grace + _CLEANUP_SECONDS,
    )
    return gateway.bind(plan, model.bind(plan))


def run(plan: Plan, cluster: str, address: Address, announce: Callable[[], None]) -> None:
    """Serves on a Ray cluster until SIGINT or SIGTERM. Other applications of the cluster's Ray Serve stay.

    Args:
        cluster: as `ray_cluster.connected` takes it.
        address: where Ray Serve's proxy on the head of the cluster listens, unless one listens already.
        announce: called once the replicas can answer.

    Raises:
        ConfigError: Ray or Ray Serve is not installed, or there is no cluster.
    """
    serve = import_serve()
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    with connected(cluster):
        serve.start(proxy_location="HeadOnly", http_options={"host": address.host, "port": address.port})
        try:
            serve.run(application(plan), name=NAME, route_prefix="/")
            announce()
            _wait_for_signal()
        finally:
            serve.delete(NAME)
            if not serve.status().applications:
                serve.shutdown()


def _wait_for_signal() -> None:
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        stop.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class ModelReplica:
    """A process with the model: Ray Serve makes one for each replica, and calls its methods."""

    def __init__(self, plan: Plan) -> None:
        self._name = str(import_serve().get_replica_context().replica_id.unique_id)
        self._app, self._close = _load_app(plan)
        self._app.state.server.replica = self._name

    async def respond(self, key: str, request: WholeRequest) -> AsyncGenerator[list[Message], None]:
        """The response to `request`. `key` is for the router, which has read it."""
        async for messages in respond(self._app, request):
            yield messages

    async def metrics(self) -> tuple[str, str]:
        """The replica's name, and what its /metrics says."""
        request = WholeRequest("GET", "/metrics", b"", ())
        body = b""
        async for messages in respond(self._app, request):
            body += b"".join(message.get("body", b"") for message in messages)
        return self._name, body.decode()

    def __del__(self) -> None:
        """Ray Serve calls this when the replica has finished its requests, or has had the time to."""
        if hasattr(self, "_close"):
            self._close(0.0)


def _load_app(plan: Plan) -> tuple[Starlette, Any]:
    """The application of `serve/app.py` with the model behind it, and what ends the model."""
    from ..api.loading import load
    from ..api.service import service_of
    from ..checkpoint.locate import api_name, find
    from .app import create_app
    from .capabilities import read_capabilities

    where = find(plan.load.get("name"))
    capabilities = read_capabilities(Path(where))
    backend = service_of(load(**plan.load), api_name(where))
    backend.set_up_grammars()
    checked = replace(plan.settings, api_keys=(), hosts=(), origins=())  # by the gateway
    return create_app(backend, checked, capabilities), backend.close


class GatewayReplica:
    """A process that reads requests, and hands them to replicas of the model."""

    def __init__(self, plan: Plan, model: Any) -> None:
        keys = (*plan.settings.api_keys, *os.environ.get(KEY_VARIABLE, "").replace(",", " ").split())
        settings = replace(plan.settings, api_keys=keys, concurrency=plan.settings.concurrency * plan.most)
        self._app = create_gateway(RayReplicas(model), settings)

    async def __call__(self, request: Request) -> Response:
        return _Delegated(self._app)


class _Delegated(Response):
    """A response that another ASGI application gives, with all of its messages as they come."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__()
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


class RayReplicas:
    """The replicas of the model, by Ray Serve's handle."""

    def __init__(self, handle: Any) -> None:
        exceptions = import_ray().exceptions
        self._handle = handle
        self._respond = handle.options(stream=True, method_name="respond")
        self._lost = (exceptions.RayActorError, exceptions.WorkerCrashedError, exceptions.ObjectLostError)
        self._busy = import_serve().exceptions.BackPressureError

    async def ask(self, key: str, request: WholeRequest) -> AsyncGenerator[list[Message], None]:
        """As `ray_gateway.Replicas.ask`."""
        response, finished = self._respond.remote(key, request), False
        try:
            async for messages in response:
                yield messages
            finished = True
        except self._lost as error:
            finished = True
            raise ReplicaLostError(type(error).__name__) from error
        except self._busy as error:
            finished = True
            raise NoRoomError from error
        finally:
            if not finished:
                response.cancel()

    async def metrics(self) -> Mapping[str, str]:
        """As `ray_gateway.Replicas.metrics`."""
        said = await self._handle.broadcast("metrics").results_async(timeout_s=_METRICS_SECONDS, return_exceptions=True)
        return dict(pair for pair in said if isinstance(pair, tuple))
