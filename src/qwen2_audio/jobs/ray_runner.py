"""A job's workers as actors of a Ray cluster: what `--ray auto` or `--ray ADDRESS` runs a job on.

A worker gets its rows in calls of a few rows each, several calls at a time, so that its engine is never without work,
and sends each outcome back as soon as it is there. Where a worker dies, or its machine goes, another is started where
the cluster has room. Workers that the cluster has no room for yet are simply not there: an autoscaler sees that they
are wanted, and they join when they are loaded.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..distributed.ray_cluster import connected, import_ray
from ..errors import ConfigError, JobError
from .runner import About, JobRow, Outcome, Work, Worker, make_worker
from .suspects import Suspects

log = logging.getLogger(__name__)
_CALLS = 8  # with a worker at a time; a death takes all of them, and what they had not answered is asked again
_FRUITLESS = 5  # deaths in one place for a worker with no outcome in between, after which the job stops
_PATIENCE = 60.0  # s without any event, after which a line says what is waited for


class WorkerActor:
    """The process of one worker. It needs this package there, and nothing else of ours."""

    def __init__(self) -> None:
        self._worker: Worker | None = None

    def load(self, work: Work) -> About:
        """Load the checkpoint. Ray shows the actor the GPU that is its own, which is then the first."""
        self._worker = make_worker(work, 0)
        return self._worker.about

    def answer(self, rows: Sequence[JobRow]) -> Iterator[Outcome]:
        """The outcomes of `rows`, as they come; calls at the same time share the engine."""
        assert self._worker is not None
        yield from self._worker.answer(iter(rows))


@dataclass(frozen=True)
class OnRay:
    """The runner. ConfigError for a share that cannot be."""

    address: str = "auto"  # as ray_cluster.connected takes it
    cpus: float = 1.0  # cores for each worker
    gpus: float = 0.0  # GPUs for each worker; several may share one

    def __post_init__(self) -> None:
        if self.cpus < 0 or self.gpus < 0 or not self.cpus + self.gpus:
            raise ConfigError(f"A worker gets {self.cpus:g} cores and {self.gpus:g} GPUs; expected more than nothing.")

    def run(self, work: Work, rows: Iterator[JobRow], ready: Callable[[About], None]) -> Generator[Outcome, None, None]:
        """As runner.py has it. Without a row to ask, no cluster is joined."""
        import_ray()
        first = next(rows, None)
        if first is None:
            return
        with connected(self.address) as ray:
            # Rows wait in `rows`, not with Ray; so many calls as a worker may have run in as many threads of it.
            actor = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_concurrency=_CALLS + 1)(WorkerActor)
            running = _Running(ray, actor, work, itertools.chain([first], rows), ready)
            try:
                yield from running.outcomes()
            finally:
                running.end()


@dataclass(eq=False)
class _Slot:
    """A place for a worker, and the worker that is there now."""

    actor: Any
    loading: Any  # the reference of its About, until it is there
    window: int = 0  # rows that it wants with it; 0 until it is loaded
    calls: dict[Any, dict[int, JobRow]] = field(default_factory=dict)  # a call's results -> its unanswered rows
    fruitless: int = 0  # deaths of workers here since the job's last outcome; a machine takes one of each place along
    on_trial: bool = False  # has rows under suspicion, and gets no others beside them

    @property
    def unanswered(self) -> list[JobRow]:
        return [row for rows in self.calls.values() for row in rows.values()]


class _Running:
    """One job on a cluster."""

    def __init__(
        self, ray: Any, actor: Any, work: Work, rows: Iterator[JobRow], ready: Callable[[About], None]
    ) -> None:
        self._ray, self._actor, self._work = ray, actor, work
        self._rows, self._ready = rows, ready
        self._exhausted = False  # no more rows
        self._suspects = Suspects()
        self._slots = [self._start() for _ in range(max(1, work.config.workers))]

    def outcomes(self) -> Iterator[Outcome]:
        """One outcome for every row."""
        while True:
            for slot in self._slots:
                self._hand_out(slot)
            if self._exhausted and not self._suspects and not any(slot.calls for slot in self._slots):
                return
            for item in self._events():
                found = next((slot for slot in self._slots if item == slot.loading or item in slot.calls), None)
                if found is not None:  # its worker has not died meanwhile
                    yield from self._loaded(found) if item == found.loading else self._answered(found, item)

    def end(self) -> None:
        """End all workers at once."""
        for slot in self._slots:
            self._ray.kill(slot.actor)

    def _start(self) -> _Slot:
        actor = self._actor.remote()
        return _Slot(actor, actor.load.remote(self._work))

    def _events(self) -> list[Any]:
        """References that have something, at least one."""
        waited_for = [item for slot in self._slots for item in (slot.loading, *slot.calls) if item is not None]
        ready, _ = self._ray.wait(waited_for, num_returns=len(waited_for), timeout=0)
        while not ready:
            ready, _ = self._ray.wait(waited_for, num_returns=1, timeout=_PATIENCE)
            if not ready and not any(slot.window for slot in self._slots):
                log.warning("No worker is loaded yet; the cluster may have no room for one.")
        return list(ready)

    # Rows

    def _hand_out(self, slot: _Slot) -> None:
        """Give a worker as many rows as it wants, or else rows under suspicion, and nothing beside them."""
        if not slot.window:
            return
        if self._suspects and not slot.calls:
            slot.on_trial = True
            self._call(slot, self._suspects.take())
        size = max(1, slot.window // _CALLS)
        while not slot.on_trial and len(slot.unanswered) + size <= slot.window and len(slot.calls) < _CALLS:
            if self._suspects or not (rows := list(itertools.islice(self._rows, size))):
                self._exhausted = self._exhausted or not self._suspects
                return
            self._call(slot, rows)

    def _call(self, slot: _Slot, rows: Sequence[JobRow]) -> None:
        results = slot.actor.answer.options(num_returns="streaming").remote(list(rows))
        slot.calls[results] = {row.number: row for row in rows}

    # What workers say

    def _loaded(self, slot: _Slot) -> Iterator[Outcome]:
        try:
            about: About = self._ray.get(slot.loading)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            yield from self._died(slot, error)
            return
        slot.loading, slot.window = None, max(1, about.window)
        self._ready(about)

    def _answered(self, slot: _Slot, results: Any) -> Iterator[Outcome]:
        try:
            outcome: Outcome = self._ray.get(next(results))
        except StopIteration:
            raise JobError("A worker has ended a call without an outcome for each of its rows.") from None
        except self._ray.exceptions.RayError as error:  # of the worker, its machine, or an object that went with it
            yield from self._died(slot, error)
            return
        del slot.calls[results][outcome.number]
        if not slot.calls[results]:
            del slot.calls[results]
            slot.on_trial = slot.on_trial and bool(slot.calls)
        self._bore_fruit()
        self._suspects.answered(outcome.number)
        yield outcome

    def _died(self, slot: _Slot, error: Exception) -> Iterator[Outcome]:
        """Another worker takes the place of one that died; its rows are asked again, or given up."""
        how = str(error).strip().splitlines()[-1][:200] if str(error).strip() else type(error).__name__
        rows = slot.unanswered
        log.warning("A worker died with %d rows, which are asked again: %s", len(rows), how)
        self._ray.kill(slot.actor)  # it may only be out of reach
        slot.fruitless += 1
        given_up = self._suspects.died(rows, crashed=False, how=how) if rows else []
        if given_up:
            self._bore_fruit()
        if slot.fruitless >= _FRUITLESS:
            raise JobError(f"{slot.fruitless} workers died one after another without an answer; the last one: {how}")
        self._slots[self._slots.index(slot)] = replace(self._start(), fruitless=slot.fruitless)
        yield from given_up

    def _bore_fruit(self) -> None:
        for slot in self._slots:
            slot.fruitless = 0
