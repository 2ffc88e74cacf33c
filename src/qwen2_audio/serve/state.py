"""State that all requests of one server share: the model, the settings, and counts of requests and reserved bytes."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from .backend import Backend
from .errors import ApiError, busy, shutting_down, too_slow
from .settings import Settings

RESERVATION = "qwen2_audio.reservation"  # key of a request's Reservation in its ASGI scope


@dataclass(eq=False)
class State:
    """One server. Only code on the server's event loop may use it."""

    backend: Backend
    settings: Settings
    started: float = field(default_factory=time.time)
    replica: str = ""  # its name among several, which the ids of stored responses carry, so that they are found again
    closing: bool = False
    requests: int = 0  # being served
    reserved_bytes: int = 0  # upper bound of the memory for their bodies and the clips that they link to
    spooled_bytes: int = 0  # upper bound of what their forms take on disk
    served: Counter[tuple[str, int]] = field(default_factory=Counter)  # responses, by route and status

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the model that clients may use; responses carry the first one."""
        return self.settings.names or (self.backend.name,)

    @contextmanager
    def admit(self, body_bytes: int, spooled_bytes: int = 0) -> Iterator[Reservation]:
        """Counts a request until the block ends: its body takes at most `body_bytes` of memory, and `spooled_bytes` of
        the disk.

        Raises ApiError: 503 if the server is shutting down, 429 if there are too many requests, or too little memory
        or disk.
        """
        if self.closing:
            raise shutting_down(self.settings.retry)
        if self.requests >= self.settings.concurrency:
            raise busy(f"{self.requests} requests are being served, the limit; try again.", self.settings.retry)
        self._check_memory(body_bytes, num_others=self.requests)
        if self.spooled_bytes and self.spooled_bytes + spooled_bytes > self.settings.max_spooled_bytes:
            raise busy("The uploads being served take all disk space for uploads; try again.", self.settings.retry)
        reservation = Reservation(self)
        self.requests += 1
        self.reserved_bytes += body_bytes
        self.spooled_bytes += spooled_bytes
        try:
            yield reservation
        finally:
            self.requests -= 1
            self.reserved_bytes -= body_bytes + reservation.linked_bytes
            self.spooled_bytes -= spooled_bytes

    def reserve(self, size: int) -> None:
        """Reserves `size` bytes more for a request that was admitted. ApiError (429) if memory is short."""
        self._check_memory(size, num_others=self.requests - 1)
        self.reserved_bytes += size

    def _check_memory(self, size: int, num_others: int) -> None:
        """A request without others beside it passes at any size; otherwise a large one would never pass."""
        if num_others and self.reserved_bytes + size > self.settings.max_reserved_bytes:
            raise busy(
                "The requests being served have reserved all memory for requests; try again.", self.settings.retry
            )

    def seconds_left(self, arrived: float) -> float:
        """Until a request's deadline. ApiError if it has passed, or the server is shutting down."""
        seconds = arrived + self.settings.deadline - asyncio.get_running_loop().time()
        if seconds <= 0:
            raise too_slow(self.settings.deadline)
        if self.closing:
            raise shutting_down(self.settings.retry)
        return seconds

    async def close(self) -> None:
        """Gives running answers the grace to finish, then ends them. Further calls do nothing."""
        if not self.closing:
            self.closing = True
            await asyncio.to_thread(self.backend.close, self.settings.grace)


@dataclass(eq=False)
class Reservation:
    """The memory that one request has reserved for the clips it links to; its body is counted apart."""

    state: State
    linked_bytes: int = 0  # of the clips it links to

    def reserve(self, size: int) -> None:
        """Reserves `size` bytes more for linked clips. ApiError: 413 if the request's clips are too large, 429 if
        memory is short."""
        settings = self.state.settings
        limit = max(settings.body_bytes, settings.clip_bytes)
        if self.linked_bytes + size > limit:
            raise ApiError(
                f"The clips that this request links to are together larger than {limit:,} bytes, the limit for a "
                "request; send fewer or compressed ones.",
                status=413,
                code="clip_too_large",
            )
        self.state.reserve(size)
        self.linked_bytes += size
