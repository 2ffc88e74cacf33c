"""Replicas of the fake model in this process, any of which may die: what Ray Serve is to the gateway."""

from __future__ import annotations

from contextlib import aclosing

from kit.fake_backend import FakeBackend
from qwen2_audio.serve.app import create_app
from qwen2_audio.serve.ray_affinity import preferred
from qwen2_audio.serve.ray_gateway import NoRoomError, ReplicaLostError
from qwen2_audio.serve.ray_replica import WholeRequest, respond
from qwen2_audio.serve.settings import Settings


class Fleet:
    """`dead` replicas answer nothing more; with `full`, none takes a request."""

    def __init__(self, count: int = 2, *, delay: float = 0.0) -> None:
        self.backends = {f"replica{number}": FakeBackend(delay=delay) for number in range(count)}
        self.apps = {name: create_app(backend, Settings()) for name, backend in self.backends.items()}
        for name, app in self.apps.items():
            app.state.server.replica = name
        self.dead: set[str] = set()
        self.full = False
        self.asked: list[tuple[str, str, str]] = []  # replica, key, path
        self.requests: list[WholeRequest] = []

    async def ask(self, key, request):
        if self.full:
            raise NoRoomError
        alive = {name: 0 for name in self.apps if name not in self.dead}
        if not alive:
            raise ReplicaLostError("all are dead")
        name = preferred(key, alive)[0] if key else min(alive)
        self.asked.append((name, key, request.path))
        self.requests.append(request)
        async with aclosing(respond(self.apps[name], request)) as responses:
            async for messages in responses:
                if name in self.dead:
                    raise ReplicaLostError(name)
                yield messages

    async def metrics(self):
        texts = {}
        for name, app in self.apps.items():
            body = b""
            async for messages in respond(app, WholeRequest("GET", "/metrics", b"", ())):
                body += b"".join(message.get("body", b"") for message in messages)
            texts[name] = body.decode()
        return texts
