"""Requests that belong to one question: asked together, counted together, cancelled together."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ...engine.request import RequestHandle
from ...types import Completion, FinishReason, Message, SamplingParams, Usage
from ..asking import Model, submit_when_free
from ..settings import TranscriptionSettings


class Reader(Model, Protocol):
    """A model whose context and tokens are known: `api.service.Service`, or a server's backend."""

    @property
    def context(self) -> int: ...

    @property
    def defaults(self) -> Mapping[str, Any]: ...

    @property
    def transcription(self) -> TranscriptionSettings: ...

    def count_tokens(self, text: str) -> int: ...


class EndedError(Exception):
    """A request that ended before its answer: cancelled, or past its deadline."""

    def __init__(self, reason: FinishReason) -> None:
        super().__init__(reason)
        self.reason: FinishReason = reason


class Asker:
    """Asks a model for one question's sake. It is itself a model, for `transcribe`.

    Attribute: `usage`, that of all answers so far.
    """

    def __init__(self, model: Reader, timeout: float | None = None, priority: int = 0) -> None:
        """`timeout`: seconds that the model has for each request."""
        self.model = model
        self.usage = Usage(0, 0, 0)
        self._timeout, self._priority = timeout, priority
        self._open: set[RequestHandle] = set()
        self._cancelled = False
        self._lock = threading.Lock()

    @property
    def is_base(self) -> bool:
        return self.model.is_base

    def submit(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        timeout: float | None = None,
        priority: int = 0,
        raw: bool = False,
    ) -> RequestHandle:
        """As the model's. Raises EndedError once this is cancelled."""
        self.check()
        handle = self.model.submit(
            messages,
            params,
            timeout=self._timeout if timeout is None else timeout,
            priority=priority or self._priority,
            raw=raw,
        )
        with self._lock:
            self._open = {other for other in self._open if not other.done} | {handle}
        if self._cancelled:  # meanwhile
            handle.cancel()
        return handle

    def ask(self, messages: Sequence[Message], params: SamplingParams) -> RequestHandle:
        """`submit`, as soon as there is room. Raises BusyError where there is none for 60 s."""
        return submit_when_free(self, messages, params)

    def answer(self, handle: RequestHandle) -> Completion:
        """Wait for the one answer of a request. Raises its error, or EndedError."""
        *_, last = chunks = list(handle)
        if last.finish_reason in ("cancelled", "deadline"):
            raise EndedError(last.finish_reason)
        if last.error is not None:
            raise last.error
        assert last.finish_reason is not None and last.usage is not None
        self.count(last.usage)
        return Completion("".join(chunk.text for chunk in chunks), last.finish_reason, last.usage, last.heard)

    def count(self, usage: Usage) -> None:
        """Add what an answer cost."""
        self.usage = added(self.usage, usage)

    def check(self) -> None:
        """Raises EndedError once this is cancelled."""
        if self._cancelled:
            raise EndedError("cancelled")

    def cancel(self) -> None:
        """End all requests, and refuse further ones. From any thread."""
        self._cancelled = True
        with self._lock:
            waiting = list(self._open)
        for handle in waiting:
            handle.cancel()


def added(one: Usage, other: Usage) -> Usage:
    return Usage(
        one.prompt_tokens + other.prompt_tokens,
        one.audio_tokens + other.audio_tokens,
        one.completion_tokens + other.completion_tokens,
        one.cached_tokens + other.cached_tokens,
    )
