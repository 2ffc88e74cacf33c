"""What one request asks for, how far it is, and how its answers reach the caller. No torch in here.

A request for `n` answers becomes n sequences. They share the prompt's blocks of the KV cache, and each is scheduled on
its own.
"""

from __future__ import annotations

import asyncio
import threading
import time
from bisect import bisect_left
from collections import abc, deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from ..errors import BusyError, ShutdownError
from ..types import Chunk, Completion, FinishReason, PoolingParams, SamplingParams, TokenLogprob, Usage

if TYPE_CHECKING:
    from ..inputs.prompt import Prompt
    from .adapters import LoadedAdapter
    from .prompt_outputs import PromptOutput

T = TypeVar("T")

PATIENCE = 60.0  # s that a request waits for room when other callers fill the queue


class RequestHandle:
    """A request as its caller sees it: deltas as they come, one terminal delta for each answer, `cancel`.

    Iterate once, in a thread (`for chunk in handle`) or in asyncio (`async for`). The deltas of one answer (`index`)
    come in order; the one with a finish_reason is its last.
    """

    def __init__(self, answers: int, cancel: Callable[[RequestHandle], None]) -> None:
        self.answers = answers
        self.prompt_usage: Usage | None = None  # what the prompt costs; known before the first delta
        self._cancel = cancel
        self._chunks: deque[Chunk] = deque()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._sleepers = 0  # threads that wait for a change
        self._wake: Callable[[], None] | None = None
        self._unfinished = answers

    def cancel(self) -> None:
        """End unfinished answers with "cancelled" within a step. From any thread, any number of times."""
        self._cancel(self)

    def put(self, chunk: Chunk) -> None:
        """The engine's side: hand over a delta."""
        with self._lock:
            assert self._unfinished > 0, "a delta after the last terminal one"
            self._unfinished -= chunk.finish_reason is not None
            self._chunks.append(chunk)
            if self._sleepers:
                self._changed.notify_all()
            wake = self._wake
        if wake is not None:
            wake()

    @property
    def done(self) -> bool:
        """All answers are finished, though their deltas may not have been read."""
        return self._unfinished == 0

    def wait(self) -> None:
        """Block until all answers are finished, read or not."""
        with self._changed:
            self._sleep_until(lambda: self.done)

    def __iter__(self) -> Iterator[Chunk]:
        unfinished = self.answers
        while unfinished:
            with self._changed:
                self._sleep_until(lambda: bool(self._chunks))
                chunk = self._chunks.popleft()
            unfinished -= chunk.finish_reason is not None
            yield chunk

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        loop, arrived, unfinished = asyncio.get_running_loop(), asyncio.Event(), self.answers

        def wake() -> None:
            if not loop.is_closed():  # a server that has shut down reads no more
                loop.call_soon_threadsafe(arrived.set)

        with self._changed:
            self._wake = wake
        while unfinished:
            arrived.clear()
            while self._chunks:
                chunk = self._chunks.popleft()
                unfinished -= chunk.finish_reason is not None
                yield chunk
            if unfinished and not self._chunks:
                await arrived.wait()

    def _sleep_until(self, met: Callable[[], bool]) -> None:
        self._sleepers += 1
        try:
            self._changed.wait_for(met)
        finally:
            self._sleepers -= 1

    def completions(self) -> list[Completion]:
        """Wait for all answers and return them whole. Raises the error that one of them ended with."""
        return completions_of(list(self), self.answers)

    def embedding(self) -> Chunk:
        """Wait for the last delta, which has the embedding. Raises its error, ShutdownError where it has none."""
        *_, last = self
        if last.error is not None:
            raise last.error
        if last.embedding is None:
            raise ShutdownError("The engine shut down before the input was embedded; ask again.")
        return last


def when_free(ask: Callable[[], T]) -> T:
    """What `ask`, such as a `submit`, returns, called again and again while the queue is full: a finished request
    leaves it with a short delay, and with it its adapter's place.

    Raises BusyError where that lasts 60 s, and ShutdownError at once.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return ask()
        except ShutdownError:
            raise
        except BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def completions_of(chunks: abc.Sequence[Chunk], answers: int) -> list[Completion]:
    """Join the deltas of one request. Raises the error that an answer ended with."""
    completions = []
    parts = tuple(chunk.part for chunk in chunks if chunk.part is not None)
    for index in range(answers):
        own = [chunk for chunk in chunks if chunk.index == index]
        last = own[-1]
        if last.error is not None:
            raise last.error
        assert last.finish_reason is not None and last.usage is not None
        logprobs: tuple[TokenLogprob, ...] = tuple(logprob for chunk in own for logprob in chunk.logprobs)
        text = "".join(chunk.text for chunk in own)
        prompt = last.prompt_logprobs
        completions.append(Completion(text, last.finish_reason, last.usage, last.heard, logprobs, prompt, parts))
    return completions


@dataclass(eq=False)
class Request:
    """One submitted conversation."""

    number: int  # in order of arrival
    prompt: Prompt
    prefix_keys: list[int]  # the prompt's ids; a negative digest of the clip stands at each of its positions
    params: SamplingParams
    handle: RequestHandle
    max_new_tokens: int  # 0: it ends with its prefill
    length_reason: FinishReason  # of an answer with that many tokens: "length", or "context"
    deadline: float | None = None  # time.monotonic() at which it ends
    priority: int = 0  # lower goes first
    arrived: float = field(default_factory=time.monotonic)
    pooling: PoolingParams | None = None  # it ends with its prefill, and hidden states are taken of it
    adapter: LoadedAdapter | None = None  # what is computed for it has this LoRA added

    @property
    def space(self) -> int:
        """Of its blocks: requests share them within one only."""
        return 0 if self.adapter is None else self.adapter.key

    @cached_property
    def clip_keys(self) -> list[int]:
        """For each clip a number that is the same where its embeddings are: its digest, negative and above -2**128 - 1,
        and below that under an adapter of the encoder."""
        adapter = self.adapter
        shift = 0 if adapter is None or not adapter.encoder else adapter.key << 128
        return [digest - shift for digest in self.prompt.digests]

    @cached_property
    def audio_positions(self) -> list[int]:
        """Where clips stand in the prompt, in order. Kept, because it is asked for at every step."""
        return [position for position, key in enumerate(self.prefix_keys) if key < 0]

    def audio_before(self, position: int) -> int:
        """How many of them are before `position`."""
        return bisect_left(self.audio_positions, position)


@dataclass(eq=False)
class Sequence:
    """One answer in progress: known tokens, of which the first `computed` are in the KV cache.

    `prefix_keys` are the request's keys and then the answer's tokens; the prefix cache compares them.
    """

    request: Request
    index: int  # of the answer within its request
    prefix_keys: list[int]
    blocks: list[int] = field(default_factory=list)  # of the KV cache, in order
    computed: int = 0
    cached: int = 0  # prompt positions found in the prefix cache when it first started
    begun: bool = False  # it ran before; then a preemption put it back in line
    draft_token_ids: list[int] = field(default_factory=list)  # proposed behind the known tokens, for the next step
    prompt_output: PromptOutput | None = None  # what is still to be taken of the prompt's positions

    @property
    def cacheable(self) -> int:
        """How many of its first positions may come from the prefix cache: those from which nothing is wanted."""
        known = len(self.prefix_keys) - 1
        return known if self.prompt_output is None else min(known, self.prompt_output.start)

    @property
    def num_uncomputed(self) -> int:
        """Known tokens that are not in the cache: 1 in decoding, more in prefill and after a preemption."""
        return len(self.prefix_keys) - self.computed

    @property
    def decoding(self) -> bool:
        known = len(self.prefix_keys)
        return known - self.computed == 1 and known > len(self.request.prefix_keys)

    @property
    def num_generated(self) -> int:
        """Tokens of the answer that are known."""
        return len(self.prefix_keys) - len(self.request.prefix_keys)

    @property
    def order(self) -> tuple[int, int, int]:
        """Scheduling order: by priority, then by arrival."""
        return (self.request.priority, self.request.number, self.index)
