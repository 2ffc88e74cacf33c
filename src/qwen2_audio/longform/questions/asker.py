"""Requests that belong to one question: asked together, counted together, cancelled together."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ...engine.request import RequestHandle, when_free
from ...types import Completion, FinishReason, Message, SamplingParams, Usage
from ..asking import Model
from ..settings import TranscriptionSettings


class Reader(Model, Protocol):
    """A model whose context and tokens are known: `api.service.Service`, or a server's backend."""

    @property
    def context(self) -> int:
        """Tokens of context, prompt and answer together."""
        ...

    @property
    def defaults(self) -> Mapping[str, Any]:
        """The generation_config in force: temperature, top_p, top_k, max_tokens, ..."""
        ...

    @property
    def transcription(self) -> TranscriptionSettings:
        """How the checkpoint transcribes clips of any length."""
        ...

    def count_tokens(self, text: str) -> int:
        """Positions that a text takes in a prompt."""
        ...


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
        self, messages: Sequence[Message], params: SamplingParams | None = None, **options: Any
    ) -> RequestHandle:
        """As the model's, with the question's timeout and priority where none are given. Raises EndedError once this
        is cancelled."""
        self.check()
        given = {name: value for name, value in options.items() if value is not None}
        handle = self.model.submit(messages, params, **{"timeout": self._timeout, "priority": self._priority, **given})
        with self._lock:
            self._open = {other for other in self._open if not other.done} | {handle}
        if self._cancelled:  # meanwhile
            handle.cancel()
        return handle

    def ask(self, messages: Sequence[Message], params: SamplingParams) -> RequestHandle:
        """`submit`, as soon as there is room. Raises BusyError where there is none for 60 s, ShutdownError where the
        model takes no more."""
        return when_free(lambda: self.submit(messages, params))

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
