"""The engine in a thread of its own, for any number of callers.

Worker threads prepare requests (decode files, make log-mels) while others decode. Every request ends in its terminal
deltas, also when the engine goes down.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ..errors import BusyError, ConfigError, ShutdownError
from ..inputs.prompt import Prompt
from ..native.openmp import team_leaver
from ..types import Chunk, FinishReason, PoolingParams, SamplingParams
from .adapters import LoadedAdapter
from .engine import Engine
from .metrics import Stats
from .request import RequestHandle

WORKERS = 2  # threads that prepare clips


@dataclass(frozen=True)
class _Asked:
    """A request without its prompt, which is still prepared."""

    params: SamplingParams | PoolingParams
    handle: RequestHandle
    deadline: float | None
    priority: int
    adapter: LoadedAdapter | None


@dataclass(frozen=True)
class _Prepared:
    """A request on its way to the engine."""

    prompt: Prompt
    asked: _Asked


class EngineThread:
    """Runs `engine` until `close`. All methods may be called from any thread."""

    def __init__(self, engine: Engine, workers: int = WORKERS) -> None:
        self._engine = engine
        self._pid = os.getpid()
        self._inbox: deque[_Prepared | RequestHandle] = deque()  # a RequestHandle: cancel it
        self._open: set[RequestHandle] = set()  # not finished, wherever they are
        # Open requests that the engine has not seen, with their deadlines. Whoever takes one out must finish it.
        self._unsubmitted: dict[RequestHandle, float | None] = {}
        self._changed = threading.Condition()
        self._closing = self._stopping = False
        self._num_preparing = 0  # calls of `prepare` in progress
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="qwen2-audio-prepare")
        self._text_worker = ThreadPoolExecutor(1, thread_name_prefix="qwen2-audio-prepare-text")
        self._thread = threading.Thread(target=self._run, name="qwen2-audio-engine", daemon=True)
        team_leaver()()  # the caller has loaded the model, and its team of threads would send the engine's to sleep
        self._thread.start()

    def submit(
        self,
        prepare: Callable[[], Prompt],
        params: SamplingParams | PoolingParams,
        *,
        timeout: float | None = None,
        priority: int = 0,
        quick: bool = False,
        adapter: LoadedAdapter | None = None,
    ) -> RequestHandle:
        """Take in a request. `prepare` is called on a worker thread; `timeout` counts from now, in seconds. `quick`: it
        has no clip to read, and does not wait for requests that have. `adapter`: of the engine's `adapters`.

        Raises BusyError where as many wait as may, or others use all places for adapters, ShutdownError once the engine
        is closing, ConfigError in a process that was forked since the engine started. What goes wrong later (in
        `prepare` too) is the `error` of the terminal deltas.
        """
        if os.getpid() != self._pid:  # the engine's thread is not in this process, and would never answer
            raise ConfigError(
                f"The engine runs in process {self._pid}, and this one ({os.getpid()}) was forked from it, without its "
                "threads; load the checkpoint after the fork, or start processes with multiprocessing's 'spawn'."
            )
        team_leaver()()
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            if self._closing:
                raise ShutdownError("The engine is shutting down and takes no more requests; ask another one.")
            limit = self._engine.settings.max_waiting + self._engine.settings.max_num_seqs
            if len(self._open) >= limit:
                self._forget_done()  # the engine's thread may not have done it yet
            if len(self._open) >= limit:
                raise BusyError(f"{len(self._open)} requests wait or run already, as many as may; try again later.")
            handle = RequestHandle(params.n, self._cancel)
            if adapter is not None:
                self._engine.adapters.use(adapter, handle)
            workers = self._text_worker if quick else self._workers
            workers.submit(self._prepare, prepare, _Asked(params, handle, deadline, priority, adapter))
            self._open.add(handle)
            self._unsubmitted[handle] = deadline
            self._changed.notify_all()  # the engine's thread watches the deadline
        return handle

    def stats(self) -> Stats:
        """What has been counted so far."""
        while True:
            try:
                return self._engine.stats.snapshot()
            except RuntimeError:  # a reason was counted for the first time meanwhile
                continue

    def close(self, grace: float = 0.0) -> None:
        """No new requests from now on; open ones get `grace` seconds, then they end as "cancelled"."""
        if os.getpid() != self._pid:  # a forked child: locks may be held by threads that it does not have
            return
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._open, timeout=grace)
            unfinished = list(self._open)
        for handle in unfinished:
            self._cancel(handle)
        with self._changed:
            self._stopping, preparing = True, self._num_preparing
            self._changed.notify_all()
        for pool in (self._workers, self._text_worker):
            pool.shutdown(wait=not preparing, cancel_futures=True)  # do not wait for a clip that is being read
        self._thread.join()
        self._engine.close()

    # -- worker threads

    def _prepare(self, prepare: Callable[[], Prompt], asked: _Asked) -> None:
        handle = asked.handle
        with self._changed:
            if handle not in self._unsubmitted:  # cancelled, or past its deadline, while it waited
                return
            self._num_preparing += 1
        try:
            prompt = prepare()
            _ = prompt.digests  # here, not on the engine's thread
        except Exception as error:
            self._finish_unsubmitted(handle, "error", error)
            return
        finally:
            with self._changed:
                self._num_preparing -= 1
        with self._changed:
            if handle in self._unsubmitted:
                self._inbox.append(_Prepared(prompt, asked))
                self._changed.notify_all()

    def _claim(self, handle: RequestHandle) -> bool:
        """Whether the engine has not seen the handle; then the caller must finish it or hand it over."""
        with self._changed:
            if handle not in self._unsubmitted:
                return False
            del self._unsubmitted[handle]
            return True

    def _finish_unsubmitted(self, handle: RequestHandle, reason: FinishReason, error: Exception | None) -> bool:
        """End a request that the engine has not seen; False where it has."""
        if not self._claim(handle):
            return False
        self._end(handle, reason, error)
        return True

    def _end(self, handle: RequestHandle, reason: FinishReason, error: Exception | None) -> None:
        for index in range(handle.answers):
            handle.put(Chunk("", reason, index=index, error=error))
        with self._changed:
            self._open.discard(handle)
            self._changed.notify_all()

    def _cancel(self, handle: RequestHandle) -> None:
        if self._finish_unsubmitted(handle, "cancelled", None):
            return
        with self._changed:
            if handle in self._open:
                self._inbox.append(handle)
                self._changed.notify_all()

    # -- the engine's thread

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._something_to_do() and (seconds := self._until_deadline()) != 0:
                    self._changed.wait(seconds)
                if self._stopping and not self._open and not self._inbox:
                    return
                items, self._inbox = self._inbox, deque()
            for item in items:
                self._take(item)
            self._end_late_requests()
            if not self._engine.idle:
                self._step()
            with self._changed:
                self._forget_done()
                self._changed.notify_all()

    def _forget_done(self) -> None:
        self._open.difference_update([handle for handle in self._open if handle.done])

    def _something_to_do(self) -> bool:
        return bool(self._inbox or not self._engine.idle or (self._stopping and not self._open))

    def _until_deadline(self) -> float | None:
        """Seconds until the first deadline of a request that the engine has not seen."""
        deadlines = [deadline for deadline in self._unsubmitted.values() if deadline is not None]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _end_late_requests(self) -> None:
        now = time.monotonic()
        with self._changed:
            late = [
                handle for handle, deadline in self._unsubmitted.items() if deadline is not None and deadline <= now
            ]
        for handle in late:
            self._finish_unsubmitted(handle, "deadline", None)

    def _take(self, item: _Prepared | RequestHandle) -> None:
        if isinstance(item, RequestHandle):
            self._engine.cancel(item)
        elif self._claim((asked := item.asked).handle):
            options: dict[str, Any] = {"deadline": asked.deadline, "priority": asked.priority, "adapter": asked.adapter}
            try:
                self._engine.submit(item.prompt, asked.params, asked.handle, **options)
            except Exception as error:
                self._end(asked.handle, "error", error)

    def _step(self) -> None:
        try:
            self._engine.step()
        except Exception as error:  # a fault of ours: no caller may wait for ever because of it
            self._engine.fail_all(error)
