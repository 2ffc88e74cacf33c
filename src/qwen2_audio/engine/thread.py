"""The engine in a thread of its own, for any number of callers.

Requests are prepared on worker threads (files decoded, log-mels made) while others decode, and every one of them ends
in its terminal pieces, also when the engine goes down.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ..errors import BusyError
from ..native.openmp import leave_team
from ..types import Chunk, SamplingParams
from .engine import Engine
from .request import Prompt, Ticket
from .stats import Stats

WORKERS = 2  # threads that prepare


@dataclass(frozen=True)
class _Prepared:
    """A request on its way to the engine."""

    prompt: Prompt
    params: SamplingParams
    ticket: Ticket
    deadline: float | None
    priority: int


class EngineThread:
    """Runs `engine` until `close`. All methods may be called from any thread."""

    def __init__(self, engine: Engine, workers: int = WORKERS) -> None:
        self._engine = engine
        self._inbox: deque[_Prepared | Ticket] = deque()  # a Ticket: cancel it
        self._open: set[Ticket] = set()  # not finished, wherever they are
        self._gone: set[Ticket] = set()  # cancelled while they were prepared
        self._news = threading.Condition()
        self._closing = self._stopping = False
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="qwen2-audio-prepare")
        self._thread = threading.Thread(target=self._run, name="qwen2-audio-engine", daemon=True)
        leave_team()  # the caller has loaded the model, and its team would send the engine's to sleep
        self._thread.start()

    def submit(
        self,
        prepare: Callable[[], Prompt],
        params: SamplingParams,
        *,
        timeout: float | None = None,
        priority: int = 0,
    ) -> Ticket:
        """Take in a request. `prepare` is called on a worker thread; `timeout` counts from now, in seconds.

        Raises BusyError where as many wait as may, or the engine is closing. What goes wrong later (in `prepare`
        too) is the `error` of the terminal pieces.
        """
        with self._news:
            if self._closing:
                raise BusyError("The engine is shutting down and takes no more requests; ask another one.")
            most = self._engine.settings.waiting + self._engine.settings.sequences
            if len(self._open) >= most:
                raise BusyError(f"{len(self._open)} requests wait or run already, as many as may; try again later.")
            ticket = Ticket(params.n, self._cancel)
            self._open.add(ticket)
        leave_team()
        deadline = None if timeout is None else time.monotonic() + timeout
        self._workers.submit(self._prepare, prepare, params, ticket, deadline, priority)
        return ticket

    def stats(self) -> Stats:
        """What has been counted so far."""
        while True:
            try:
                return self._engine.stats.snapshot()
            except RuntimeError:  # a reason was counted for the first time meanwhile
                continue

    def close(self, grace: float = 0.0) -> None:
        """No new requests from now on; those under way get `grace` seconds, then they end as "cancelled"."""
        with self._news:
            self._closing = True
            self._news.notify_all()
            self._news.wait_for(lambda: not self._open, timeout=grace)
            for ticket in self._open:
                self._inbox.append(ticket)
            self._stopping = True
            self._news.notify_all()
        self._workers.shutdown(wait=True)
        self._thread.join()

    # -- worker threads

    def _prepare(
        self,
        prepare: Callable[[], Prompt],
        params: SamplingParams,
        ticket: Ticket,
        deadline: float | None,
        priority: int,
    ) -> None:
        if ticket in self._gone:
            return self._end_unheard(ticket, "cancelled", None)
        if deadline is not None and time.monotonic() >= deadline:
            return self._end_unheard(ticket, "deadline", None)
        try:
            prompt = prepare()
            _ = prompt.digests  # here, not on the engine's thread
        except Exception as error:
            return self._end_unheard(ticket, "error", error)
        with self._news:
            self._inbox.append(_Prepared(prompt, params, ticket, deadline, priority))
            self._news.notify_all()
        return None

    def _end_unheard(self, ticket: Ticket, reason: str, error: Exception | None) -> None:
        """End a request that the engine has not seen."""
        for index in range(ticket.answers):
            ticket.put(Chunk("", reason, index=index, error=error))  # type: ignore[arg-type]
        self._forget(ticket)

    def _cancel(self, ticket: Ticket) -> None:
        with self._news:
            if ticket in self._open:
                self._gone.add(ticket)
                self._inbox.append(ticket)
                self._news.notify_all()

    def _forget(self, ticket: Ticket) -> None:
        with self._news:
            self._open.discard(ticket)
            self._gone.discard(ticket)
            self._news.notify_all()

    # -- the engine's thread

    def _run(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._inbox or not self._engine.idle or (self._stopping and not self._open))
                if self._stopping and not self._open and not self._inbox:
                    return
                mail, self._inbox = self._inbox, deque()
            for item in mail:
                self._take(item)
            if not self._engine.idle:
                self._step()
            with self._news:
                done = [one for one in self._open if one.done]
                self._open.difference_update(done)
                self._gone.difference_update(done)
                self._news.notify_all()

    def _take(self, item: _Prepared | Ticket) -> None:
        if isinstance(item, Ticket):
            self._engine.cancel(item)
            return
        if item.ticket in self._gone:
            self._end_unheard(item.ticket, "cancelled", None)
            return
        try:
            self._engine.submit(item.prompt, item.params, item.ticket, deadline=item.deadline, priority=item.priority)
        except Exception as error:
            self._end_unheard(item.ticket, "error", error)

    def _step(self) -> None:
        try:
            self._engine.step()
        except Exception as error:  # a fault of ours: nobody waits for ever because of it
            self._engine.fail_all(error)
