"""Runs the application on uvicorn: sockets, TLS, and a shutdown that lets running answers finish."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import ConfigError
from .settings import Settings
from .state import State

_HEAD_SECONDS = 15.0  # until a new connection must have sent the headers of a request
_STALL_SECONDS = 60.0  # until a client must have read what was sent
_TICK = 0.1  # s between two checks for a second Ctrl-C
_AFTER_GRACE = 6  # s to send the last events


@dataclass(frozen=True)
class Address:
    """Where the server listens. ConfigError if a certificate file does not exist."""

    host: str = "127.0.0.1"
    port: int = 8000
    certificate: Path | None = None  # PEM, the chain included
    key: Path | None = None  # PEM

    def __post_init__(self) -> None:
        if self.key is not None and self.certificate is None:
            raise ConfigError("A TLS key was given without its certificate; give both.")
        for file in (self.certificate, self.key):
            if file is not None and not file.is_file():
                raise ConfigError(f"There is no file {file}; expected a certificate or key in PEM.")

    def at(self, listener: socket.socket) -> str:
        """The URL, with the port that the listener really has."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self.certificate else ''}://{host}:{listener.getsockname()[1]}"


class Server(uvicorn.Server):
    """Shuts down in order: refuses new requests, gives running ones the grace, then closes the sockets."""

    def __init__(self, app: Starlette, address: Address) -> None:
        self._state: State = app.state.server
        super().__init__(_config(app, address, self._state.settings))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        closing = asyncio.create_task(self._state.close())
        seconds_left = self._state.settings.grace
        while seconds_left > 0 and not closing.done() and not self.force_exit:  # new requests get a 503 meanwhile
            await asyncio.wait({closing}, timeout=min(seconds_left, _TICK))
            seconds_left -= _TICK
        await super().shutdown(sockets)
        await closing


def _config(app: Starlette, address: Address, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=address.host,
        port=address.port,
        ssl_certfile=address.certificate,
        ssl_keyfile=address.key,
        http=_Impatient,
        ws="none",
        access_log=False,  # RequestMiddleware logs requests
        log_config=None,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=settings.connections,
        timeout_keep_alive=settings.keep_alive,
        timeout_graceful_shutdown=_AFTER_GRACE,
    )


class _Impatient(H11Protocol):
    """A connection that says nothing is closed, so that silence takes no places; so is one that takes nothing."""

    _stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._patience = self.loop.call_later(_HEAD_SECONDS, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._patience.cancel()
        self._unstall()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unstall()
        self._stall = self.loop.call_later(_STALL_SECONDS, self.transport.abort)  # close() would wait for the client

    def resume_writing(self) -> None:
        self._unstall()
        super().resume_writing()

    def _unstall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()

    def _give_up(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


def listening(address: Address) -> socket.socket:
    """A socket bound to the address; it accepts connections once `serve` runs. ConfigError if it cannot be bound."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # Name the protocol: otherwise asyncio leaves Nagle's algorithm on, which delayed the first token by 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address.host, address.port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigError(f"Cannot listen on {address.host}, port {address.port}: {error}.") from error
    return listener


def serve(app: Starlette, address: Address, listener: socket.socket) -> None:
    """Runs until SIGINT or SIGTERM."""
    with suppress(KeyboardInterrupt):  # uvicorn raises the signal again after its shutdown
        Server(app, address).run(sockets=[listener])
