"""The ASGI application: its routes, middleware and the page. `run.py` runs it on uvicorn; any ASGI server can."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from .backend import Backend
from .capabilities import Capabilities, general_capabilities
from .errors import on_http_error, respond, shutting_down
from .metrics import Metrics
from .middleware import RequestMiddleware
from .models import model_names, served_model
from .routes.audio import AudioRoutes
from .routes.chat import ChatRoutes
from .routes.decisions import DecisionRoutes
from .routes.embeddings import EmbeddingRoutes
from .routes.responses import ResponseRoutes
from .routes.tokenize import TokenizeRoutes
from .settings import Settings
from .state import State

STATIC = Path(__file__).parent / "static"
# The page loads nothing from other hosts, sends nothing to them, and no other page may frame it.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def create_app(
    backend: Backend, settings: Settings | None = None, capabilities: Capabilities | None = None
) -> Starlette:
    """The application that serves `backend`. `app.state.server` is its State; its `close` ends the model gracefully.

    `capabilities`: what the page says that the checkpoint can do; None: what is true of its kind.
    """
    state = State(backend, settings or Settings())
    capabilities = capabilities or general_capabilities(is_base=backend.is_base)
    chat, audio, info = ChatRoutes(state), AudioRoutes(state), _InfoRoutes(state, capabilities)
    decisions, tokens, responses = DecisionRoutes(state), TokenizeRoutes(state), ResponseRoutes(state)
    routes: list[Route | Mount] = [
        Route("/v1/chat/completions", chat.complete, methods=["POST"]),
        Route("/v1/responses", responses.create, methods=["POST"]),
        Route("/v1/responses/input_tokens", responses.input_tokens, methods=["POST"]),
        Route("/v1/responses/{id}", responses.retrieve, methods=["GET"]),
        Route("/v1/responses/{id}", responses.delete, methods=["DELETE"]),
        Route("/v1/audio/transcriptions", audio.transcribe, methods=["POST"]),
        Route("/v1/audio/translations", audio.translate, methods=["POST"]),
        Route("/v1/embeddings", EmbeddingRoutes(state).embed, methods=["POST"]),
        Route("/v1/decisions", decisions.decisions, methods=["POST"]),
        Route("/v1/systemone", decisions.systemone, methods=["POST"]),
        Route("/tokenize", tokens.tokenize, methods=["POST"]),
        Route("/detokenize", tokens.detokenize, methods=["POST"]),
        Route("/v1/models", info.models),
        Route("/v1/models/{name:path}", info.model),
        Route("/samples/{number:int}", capabilities.sample),
        Route("/health", info.health),
        Route("/ready", info.ready),
        Route("/version", info.version),
        Route("/metrics", Metrics(state).scrape),
    ]
    paths = frozenset(route.path for route in routes if isinstance(route, Route))
    if STATIC.is_dir():
        routes += [Route("/", _page), Mount("/static", _Static(directory=STATIC))]
    app = Starlette(
        routes=routes,
        middleware=[*cors(state.settings), Middleware(RequestMiddleware, state=state, paths=paths)],
        exception_handlers={HTTPException: on_http_error},  # RequestMiddleware handles all other errors
        lifespan=_lifespan,
    )
    app.state.server = state
    return app


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    yield
    await app.state.server.close()


def cors(settings: Settings) -> list[Middleware]:
    """Empty unless the settings allow web pages of other origins."""
    if not settings.origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=list(settings.origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],  # OpenAI's client sends a dozen of its own, such as x-stainless-arch
            expose_headers=["x-request-id", "retry-after"],
        )
    ]


async def _page(request: Request) -> Response:
    """The web page at /."""
    return FileResponse(STATIC / "index.html", headers=PAGE_HEADERS)


class _Static(StaticFiles):
    """The page's files, with its headers."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(PAGE_HEADERS)
        return response


class _InfoRoutes:
    """Models, health, readiness and version."""

    def __init__(self, state: State, capabilities: Capabilities) -> None:
        self._state = state
        self._capabilities = capabilities.to_dict()

    async def models(self, request: Request) -> Response:
        data = [self._entry(name) for name in await model_names(self._state)]
        return JSONResponse({"object": "list", "data": data})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._state.names:
            name = (await served_model(self._state, name)).name
        return JSONResponse(self._entry(name))

    def _entry(self, name: str) -> dict[str, Any]:
        backend, base = self._state.backend, name in self._state.names
        return {
            "id": name, "object": "model", "created": int(self._state.started), "owned_by": "qwen2-audio",
            "parent": None if base else self._state.names[0],
            "max_model_len": backend.context, "about": backend.about, "defaults": dict(backend.defaults),
            "capabilities": self._capabilities,
        }  # fmt: skip

    async def health(self, request: Request) -> Response:
        """200 as long as the process runs."""
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """200 while the server takes requests, 503 once it shuts down: for load balancers."""
        if self._state.closing:
            return respond(shutting_down(self._state.settings.retry))
        return JSONResponse({"status": "ready"})

    async def version(self, request: Request) -> Response:
        return JSONResponse({"version": self._state.backend.version})
