"""What one request wants, where it stands, and how its answers reach whoever asked. No torch in here.

A request with `n` answers is n sequences, which share the prompt's blocks and are scheduled each on its own.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import abc, deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..types import Chunk, Completion, FinishReason, SamplingParams, TokenLogprob

if TYPE_CHECKING:
    from ..inputs.prompt import Prompt


class Ticket:
    """A request as whoever asked sees it: pieces as they come, one terminal piece for each of its answers, `cancel`.

    Iterate in a thread (`for chunk in ticket`) or in asyncio (`async for`), once. The pieces of one answer (`index`)
    come in order; the one that carries a finish_reason is its last.
    """

    def __init__(self, answers: int, cancel: Callable[[Ticket], None]) -> None:
        self.answers = answers
        self._cancel = cancel
        self._chunks: deque[Chunk] = deque()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._asleep = 0  # threads that wait for a change
        self._wake: Callable[[], None] | None = None
        self._open = answers

    def cancel(self) -> None:
        """What is not finished ends with "cancelled" within a step. From any thread, any number of times."""
        self._cancel(self)

    def put(self, chunk: Chunk) -> None:
        """The engine's side: hand over a piece."""
        with self._lock:
            assert self._open > 0, "a piece after the last terminal one"
            self._open -= chunk.finish_reason is not None
            self._chunks.append(chunk)
            if self._asleep:
                self._changed.notify_all()
            wake = self._wake
        if wake is not None:
            wake()

    @property
    def done(self) -> bool:
        """All answers are finished, though perhaps not read."""
        return self._open == 0

    def wait(self) -> None:
        """Until all answers are finished, read or not."""
        with self._changed:
            self._sleep_until(lambda: self.done)

    def __iter__(self) -> Iterator[Chunk]:
        left = self.answers
        while left:
            with self._changed:
                self._sleep_until(lambda: bool(self._chunks))
                chunk = self._chunks.popleft()
            left -= chunk.finish_reason is not None
            yield chunk

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        loop, some, left = asyncio.get_running_loop(), asyncio.Event(), self.answers

        def wake() -> None:
            if not loop.is_closed():  # a server that has shut down reads no more
                loop.call_soon_threadsafe(some.set)

        with self._changed:
            self._wake = wake
        while left:
            some.clear()
            while self._chunks:
                chunk = self._chunks.popleft()
                left -= chunk.finish_reason is not None
                yield chunk
            if left and not self._chunks:
                await some.wait()

    def _sleep_until(self, met: Callable[[], bool]) -> None:
        self._asleep += 1
        try:
            self._changed.wait_for(met)
        finally:
            self._asleep -= 1

    def completions(self) -> list[Completion]:
        """Wait for all answers, whole. Raises what made one of them fail."""
        return completions_of(list(self), self.answers)


def completions_of(chunks: abc.Sequence[Chunk], answers: int) -> list[Completion]:
    """The pieces of one request, joined. Raises the error that an answer ended with."""
    made = []
    for index in range(answers):
        own = [chunk for chunk in chunks if chunk.index == index]
        last = own[-1]
        if last.error is not None:
            raise last.error
        assert last.finish_reason is not None and last.usage is not None
        logprobs: tuple[TokenLogprob, ...] = tuple(one for chunk in own for one in chunk.logprobs)
        text = "".join(chunk.text for chunk in own)
        made.append(Completion(text, last.finish_reason, last.usage, last.heard, logprobs))
    return made


@dataclass(eq=False)
class Request:
    """One submitted conversation."""

    number: int  # in order of arrival
    prompt: Prompt
    keys: list[int]  # the prompt's ids, a clip's positions replaced by what stands for its sound (negative numbers)
    params: SamplingParams
    ticket: Ticket
    most: int  # new tokens at most
    most_reason: FinishReason  # why it ends there: "length", or "context"
    deadline: float | None = None  # time.monotonic() at which it ends, whatever it has said
    priority: int = 0  # lower goes first
    arrived: float = field(default_factory=time.monotonic)


@dataclass(eq=False)
class Sequence:
    """One answer under way: tokens known, of which the first `computed` are in the KV cache.

    `keys` are what the cache is shared by: prompt keys, then the answer's tokens. len(keys) - computed is what is left
    to compute before the next token can be drawn: 1 in decoding, more in prefill and after a preemption.
    """

    request: Request
    index: int  # which of the request's answers
    keys: list[int]
    blocks: list[int] = field(default_factory=list)  # of the KV cache, in order
    computed: int = 0
    cached: int = 0  # positions of the prompt that were found in the cache when it first began
    begun: bool = False  # it was admitted before; then a preemption sent it back
    guesses: list[int] = field(default_factory=list)  # speculative tokens behind the known ones, for the next step

    @property
    def left(self) -> int:
        """Known tokens that are not in the cache yet, at least 1 while it runs."""
        return len(self.keys) - self.computed

    @property
    def decoding(self) -> bool:
        known = len(self.keys)
        return known - self.computed == 1 and known > len(self.request.keys)

    @property
    def order(self) -> tuple[int, int, int]:
        """Who goes first: by priority, then by arrival."""
        return (self.request.priority, self.request.number, self.index)
