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
from .settings import Settings
from .stream_reader import pieces

PLACE = "qwen2_audio.place"  # key of a request's Place in its scope


@dataclass(eq=False)
class State:
    """One server. Used on its event loop only."""

    backend: Backend
    settings: Settings
    started: float = field(default_factory=time.time)
    closing: bool = False
    requests: int = 0  # being served
    held: int = 0  # bytes of their bodies and of the clips that they name, at most
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
    def place(self, length: int) -> Iterator[Place]:
        """Room for a request whose body may have `length` bytes. ApiError where there is none, or no time left."""
        if self.closing:
            raise shutting_down(self.settings.retry)
        if self.requests >= self.settings.concurrency:
            raise busy(f"{self.requests} requests are being served, as many as may; try again.", self.settings.retry)
        self._check_memory(length, others=self.requests)
        place = Place(self)
        self.requests += 1
        self.held += length
        try:
            yield place
        finally:
            self.requests -= 1
            self.held -= length + place.fetched

    def take(self, size: int) -> None:
        """Room for `size` bytes more of a request that has a place. ApiError where there is none."""
        self._check_memory(size, others=self.requests - 1)
        self.held += size

    def _check_memory(self, size: int, others: int) -> None:
        """A request that is alone always has room: else a large one never would."""
        if others and self.held + size > self.settings.held_bytes:
            raise busy("The requests being served hold as much memory as they may; try again.", self.settings.retry)

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


@dataclass(eq=False)
class Place:
    """What a request holds beside its body, until it ends."""

    state: State
    fetched: int = 0  # bytes of clips that it names

    def take(self, size: int) -> None:
        """Room for `size` bytes more of its clips. ApiError: 413 where they are too many, 429 where memory is short."""
        settings = self.state.settings
        most = max(settings.body_bytes, settings.clip_bytes)
        if self.fetched + size > most:
            raise ApiError(
                f"The clips that this request names are together larger than {most:,} bytes, the limit for a request; "
                "name fewer or compressed ones.",
                status=413,
                code="clip_too_large",
            )
        self.state.take(size)
        self.fetched += size
