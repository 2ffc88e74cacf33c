"""What all requests to one server share: the model, the rules, and how much is going on."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..engine.request import Ticket
from ..types import Chunk, Message, SamplingParams
from .backend import Backend
from .errors import ApiError, busy, shutting_down, too_slow
from .reading import pieces
from .settings import Settings


@dataclass(eq=False)
class State:
    """One server. Used on its event loop only."""

    backend: Backend
    settings: Settings
    started: float = field(default_factory=time.time)
    closing: bool = False
    requests: int = 0  # being served
    held: int = 0  # bytes of their bodies, at most
    served: Counter[tuple[str, int]] = field(default_factory=Counter)  # by route and status

    @property
    def names(self) -> tuple[str, ...]:
        """What the model is called; the first is told to clients."""
        return self.settings.names or (self.backend.name,)

    def check_model(self, asked: str | None) -> None:
        """ApiError where a client wants another model. There is one, so naming none is fine."""
        if asked is not None and asked not in self.names:
            message = f"There is no model {asked[:100]!r} here; expected {', '.join(map(repr, self.names))}."
            raise ApiError(message, status=404, param="model", code="model_not_found")

    @contextmanager
    def place(self, length: int) -> Iterator[None]:
        """Room for a request whose body may have `length` bytes. ApiError where there is none, or no time left."""
        if self.closing:
            raise shutting_down(self.settings.retry)
        if self.requests >= self.settings.concurrency:
            raise busy(f"{self.requests} requests are being served, as many as may; try again.", self.settings.retry)
        if self.requests and self.held + length > self.settings.held_bytes:
            raise busy("The requests being served hold as much memory as they may; try again.", self.settings.retry)
        self.requests += 1
        self.held += length
        try:
            yield
        finally:
            self.requests -= 1
            self.held -= length

    def ask(
        self, messages: list[Message], params: SamplingParams, arrived: float, priority: int = 0
    ) -> tuple[Ticket, AsyncGenerator[Chunk, None]]:
        """Hand a conversation to the model: its ticket, and its pieces as `reading.pieces` gives them."""
        left = arrived + self.settings.deadline - asyncio.get_running_loop().time()
        if left <= 0:
            raise too_slow(self.settings.deadline)
        if self.closing:
            raise shutting_down(self.settings.retry)
        ticket = self.backend.submit(messages, params, timeout=left, priority=priority)
        return ticket, pieces(ticket, self.settings)

    async def close(self) -> None:
        """Let what runs finish within the grace, then end it. Any number of times."""
        if not self.closing:
            self.closing = True
            await asyncio.to_thread(self.backend.close, self.settings.grace)
