"""An engine whose model is divided among processes: the first one leads, the others compute their shares.

    first     scheduler, sounds, sampling;   BEGIN 512    COPY 3 9    PASS tables, counts, ... embeddings     END
    others                                   a storage    a block     the same pass over their own heads      leave

A message is a row of int64: how many numbers there are, what to do, the numbers.
"""

from __future__ import annotations

import atexit
import contextlib
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any, Self

import torch

from ...distributed.process_group import Processes
from ...distributed.tensor_parallel import TensorParallelGroup, tensor_parallel_group
from ...errors import CapacityError, ConfigError, Qwen2AudioError
from ...model.paged import PagedStorage
from ...native.paged import storage_for
from .forward_batch import Packed

FIRST = 1024  # numbers sent at once; what is longer takes a second message
LAST_PASS = 60.0  # seconds that the end waits for a pass under way


class Order(IntEnum):
    BEGIN = 0  # blocks
    COPY = 1  # source, target
    CLEAR = 2  # blocks
    PASS = 3  # Packed.numbers(); the embeddings follow
    END = 4


class Lead:
    """What an engine in the first process tells the others. Of several engines on one model only the newest may."""

    def __init__(self, together: TensorParallelGroup) -> None:
        self._together, self._processes = together, together.processes
        together.engines += 1
        self._number = together.engines
        if self._number == 1:
            atexit.register(_end, together)

    @classmethod
    def of(cls, model: Any) -> Self | None:
        """None for a model that is whole. Raises ConfigError in any process but the first."""
        together = tensor_parallel_group(model)
        if together is None:
            return None
        if together.processes.first:
            return cls(together)
        raise ConfigError(
            f"This is process {together.processes.rank} of {together.processes.size} that share the model, counted "
            "from 0, and only process 0 answers; call qwen2_audio.engine.executor.tp_worker.follow(model) here."
        )

    @property
    def in_one_memory(self) -> int:
        """How many processes take their part of the cache from the memory that this one sees."""
        return 1 if self._processes.device.type == "cuda" else self._processes.size

    def begin(self, blocks: int) -> None:
        """The others get room for `blocks` blocks of the cache, with zeros in them."""
        with self._all(Order.BEGIN, [blocks]):
            pass

    def copy(self, source: int, target: int) -> None:
        """Block `target` becomes what `source` is."""
        with self._all(Order.COPY, [source, target]):
            pass

    def clear(self, blocks: Sequence[int]) -> None:
        """Zeros in `blocks`."""
        with self._all(Order.CLEAR, blocks):
            pass

    @contextlib.contextmanager
    def passing(self, packed: Packed, embeds: torch.Tensor) -> Iterator[None]:
        """The pass that runs meanwhile runs in all processes, with these embeddings [1, N, H].

        Raises CapacityError where it failed: the others may be anywhere in it, so that there is no further one.
        """
        with self._all(Order.PASS, packed.numbers()):
            self._processes.broadcast(embeds.contiguous())
            yield

    @contextlib.contextmanager
    def _all(self, order: Order, numbers: Sequence[int]) -> Iterator[None]:
        with self._together.lock:
            if self._together.closed:
                raise CapacityError(self._together.closed)
            if self._number != self._together.engines:
                raise ConfigError("A newer engine runs on this model, which several processes share; use that one.")
            try:
                _tell(self._processes, order, numbers)
                yield
            except BaseException as error:
                self._together.closed = (
                    f"The processes that share the model are no longer in step, since one of them failed ({error}); "
                    "start all of them again."
                )
                if isinstance(error, Exception):
                    raise CapacityError(self._together.closed) from error
                raise


def follow(model: Any) -> bool:
    """In all processes but the first of those that share `model`: compute what its engine says, until it ends.

    Returns True then. In the first process, and for a model that is whole, returns False at once. Signals that ask
    for an end are for the first process, which may grant answers some more time, and are ignored meanwhile.

    Raises Qwen2AudioError where the first process has gone without a word.
    """
    together = tensor_parallel_group(model)
    if together is None or together.processes.first:
        return False
    with _signals_ignored(), torch.no_grad():
        try:
            _follow(model, together.processes)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = re.sub(r"^\[[^]]*\] ", "", str(error)).partition(". ")[0]  # gloo begins with its own source line
            raise Qwen2AudioError(f"Process 0, which has the engine, is gone ({reason}); this one leaves.") from error
    return True


def _follow(model: Any, processes: Processes) -> None:
    storage: PagedStorage | None = None
    width = model.config.text_config.hidden_size
    while True:
        order, numbers = _hear(processes)
        if order == Order.END:
            return
        if order == Order.BEGIN:
            storage = None  # the old one goes first
            storage = storage_for(model.language_model, numbers[0])
            continue
        assert storage is not None
        if order == Order.COPY:
            storage.copy_block(*numbers)
        elif order == Order.CLEAR:
            storage.clear(numbers)
        else:
            packed = Packed.of(numbers)
            embeds = torch.empty(1, sum(packed.counts), width, dtype=model.dtype, device=model.device)
            packed.run(model, storage, processes.broadcast(embeds))


def _tell(processes: Processes, order: Order, numbers: Sequence[int]) -> None:
    message = torch.tensor([len(numbers), order, *numbers])
    rest = message[FIRST:].clone()
    first = torch.zeros(FIRST, dtype=torch.int64)
    first[: len(message)] = message[:FIRST]
    processes.broadcast(first)
    if len(rest):
        processes.broadcast(rest)


def _hear(processes: Processes) -> tuple[Order, list[int]]:
    first = processes.broadcast(torch.zeros(FIRST, dtype=torch.int64))
    count, order, *numbers = first.tolist()
    missing = count + 2 - FIRST
    if missing > 0:
        numbers += processes.broadcast(torch.zeros(missing, dtype=torch.int64)).tolist()
    return Order(order), numbers[:count]


def _end(together: TensorParallelGroup) -> None:
    """At the first process's exit: the others may go."""
    if not together.lock.acquire(timeout=LAST_PASS):
        return  # a pass that does not end: the connections will, with this process
    try:
        if not together.closed:
            together.closed = "This process is ending, and takes no more requests."
            with contextlib.suppress(RuntimeError):
                _tell(together.processes, Order.END, ())
    finally:
        together.lock.release()


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.signal(one, signal.SIG_IGN) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
