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
from ..inputs.prompt import Prompt
from ..native.openmp import leave_team
from ..types import Chunk, FinishReason, SamplingParams
from .engine import Engine
from .metrics import Stats
from .request import Ticket

WORKERS = 2  # threads that prepare sounds


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
        # Those of them that the engine has not seen, with their deadlines. Whoever takes one out answers for it.
        self._unheard: dict[Ticket, float | None] = {}
        self._news = threading.Condition()
        self._closing = self._stopping = False
        self._reading = 0  # `prepare`s under way
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="qwen2-audio-prepare")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="qwen2-audio-prepare-text")
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
        quick: bool = False,
    ) -> Ticket:
        """Take in a request. `prepare` is called on a worker thread; `timeout` counts from now, in seconds. `quick`:
        it has no sound to read, and does not wait for those that have.

        Raises BusyError where as many wait as may, or the engine is closing. What goes wrong later (in `prepare`
        too) is the `error` of the terminal pieces.
        """
        leave_team()
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._news:
            if self._closing:
                raise BusyError("The engine is shutting down and takes no more requests; ask another one.")
            most = self._engine.settings.waiting + self._engine.settings.sequences
            if len(self._open) >= most:
                self._forget_done()  # the engine's thread may not have come to it
            if len(self._open) >= most:
                raise BusyError(f"{len(self._open)} requests wait or run already, as many as may; try again later.")
            ticket = Ticket(params.n, self._cancel)
            workers = self._writer if quick else self._workers
            workers.submit(self._prepare, prepare, params, ticket, deadline, priority)
            self._open.add(ticket)
            self._unheard[ticket] = deadline
            self._news.notify_all()  # the engine's thread watches the deadline
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
            still = list(self._open)
        for ticket in still:
            self._cancel(ticket)
        with self._news:
            self._stopping, reading = True, self._reading
            self._news.notify_all()
        for pool in (self._workers, self._writer):
            pool.shutdown(wait=not reading, cancel_futures=True)  # nobody waits for a sound that is being read
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
        with self._news:
            if ticket not in self._unheard:  # cancelled, or late, while it waited
                return
            self._reading += 1
        try:
            prompt = prepare()
            _ = prompt.digests  # here, not on the engine's thread
        except Exception as error:
            self._end_unheard(ticket, "error", error)
            return
        finally:
            with self._news:
                self._reading -= 1
        with self._news:
            if ticket in self._unheard:
                self._inbox.append(_Prepared(prompt, params, ticket, deadline, priority))
                self._news.notify_all()

    def _claim(self, ticket: Ticket) -> bool:
        """Whether the engine has not seen the ticket; from now on it is the caller's to finish or to hand over."""
        with self._news:
            if ticket not in self._unheard:
                return False
            del self._unheard[ticket]
            return True

    def _end_unheard(self, ticket: Ticket, reason: FinishReason, error: Exception | None) -> bool:
        """End a request that the engine has not seen; False where it has."""
        if not self._claim(ticket):
            return False
        self._end(ticket, reason, error)
        return True

    def _end(self, ticket: Ticket, reason: FinishReason, error: Exception | None) -> None:
        for index in range(ticket.answers):
            ticket.put(Chunk("", reason, index=index, error=error))
        with self._news:
            self._open.discard(ticket)
            self._news.notify_all()

    def _cancel(self, ticket: Ticket) -> None:
        if self._end_unheard(ticket, "cancelled", None):
            return
        with self._news:
            if ticket in self._open:
                self._inbox.append(ticket)
                self._news.notify_all()

    # -- the engine's thread

    def _run(self) -> None:
        while True:
            with self._news:
                while not self._something_to_do() and (left := self._until_deadline()) != 0:
                    self._news.wait(left)
                if self._stopping and not self._open and not self._inbox:
                    return
                mail, self._inbox = self._inbox, deque()
            for item in mail:
                self._take(item)
            self._end_late_ones()
            if not self._engine.idle:
                self._step()
            with self._news:
                self._forget_done()
                self._news.notify_all()

    def _forget_done(self) -> None:
        self._open.difference_update([one for one in self._open if one.done])

    def _something_to_do(self) -> bool:
        return bool(self._inbox or not self._engine.idle or (self._stopping and not self._open))

    def _until_deadline(self) -> float | None:
        """Seconds until the next request that the engine has not seen is late."""
        deadlines = [one for one in self._unheard.values() if one is not None]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _end_late_ones(self) -> None:
        now = time.monotonic()
        with self._news:
            late = [ticket for ticket, deadline in self._unheard.items() if deadline is not None and deadline <= now]
        for ticket in late:
            self._end_unheard(ticket, "deadline", None)

    def _take(self, item: _Prepared | Ticket) -> None:
        if isinstance(item, Ticket):
            self._engine.cancel(item)
        elif self._claim(item.ticket):
            try:
                self._engine.submit(
                    item.prompt, item.params, item.ticket, deadline=item.deadline, priority=item.priority
                )
            except Exception as error:
                self._end(item.ticket, "error", error)

    def _step(self) -> None:
        try:
            self._engine.step()
        except Exception as error:  # a fault of ours: nobody waits for ever because of it
            self._engine.fail_all(error)
