"""An engine whose model several processes share: the first one drives, the others compute their shares.

    first     scheduler, encoder, sampling;   INIT 512    COPY 3 9    RUN block tables, lengths, embeddings     EXIT
    others                                    a storage   a block     the same pass over their own heads     leave

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
from typing import Self

import torch

from ...distributed.process_group import Processes
from ...distributed.tensor_parallel import TensorParallelGroup, tensor_parallel_group
from ...errors import CapacityError, ConfigError, Qwen2AudioError
from ...model.paged import PagedStorage
from ...native.paged import storage_for
from ..model_interface import EngineModel
from .forward_batch import ForwardBatch

FIRST_MESSAGE = 1024  # numbers in the first message; the rest follows in a second one
LAST_PASS_SECONDS = 60.0  # that the exit waits for a running pass


class Command(IntEnum):
    INIT = 0  # number of blocks
    COPY = 1  # source, target
    ZERO = 2  # blocks
    RUN = 3  # ForwardBatch.numbers(); the embeddings follow
    EXIT = 4


class TPDriver:
    """Sends the engine's commands to the other processes. Of several engines on one model only the newest may."""

    def __init__(self, together: TensorParallelGroup) -> None:
        self._together, self._processes = together, together.processes
        together.engines += 1
        self._number = together.engines
        if self._number == 1:
            atexit.register(_end, together)

    @classmethod
    def of(cls, model: EngineModel) -> Self | None:
        """None for a model that is whole. Raises ConfigError in any process but the first."""
        together = tensor_parallel_group(model)
        if together is None:
            return None
        if together.processes.first:
            return cls(together)
        raise ConfigError(
            f"This is process {together.processes.rank} of {together.processes.size} that share the model, counted "
            "from 0, and only process 0 answers; call qwen2_audio.engine.executor.tp_worker.run_worker(model) here."
        )

    @property
    def processes_per_memory(self) -> int:
        """How many processes take their share of the cache from the memory that this one sees."""
        return 1 if self._processes.device.type == "cuda" else self._processes.size

    def init(self, blocks: int) -> None:
        """The others allocate `blocks` blocks of the cache, filled with zeros."""
        with self._all(Command.INIT, [blocks]):
            pass

    def copy(self, source: int, target: int) -> None:
        """Copy block `source` into block `target`."""
        with self._all(Command.COPY, [source, target]):
            pass

    def zero(self, blocks: Sequence[int]) -> None:
        """Write zeros to `blocks`."""
        with self._all(Command.ZERO, blocks):
            pass

    @contextlib.contextmanager
    def running(self, batch: ForwardBatch, embeds: torch.Tensor) -> Iterator[None]:
        """All processes run the pass that runs inside this context, with these embeddings [1, N, H].

        Raises CapacityError where it failed: the others may be anywhere in it, so that there is no further one.
        """
        with self._all(Command.RUN, batch.numbers()):
            self._processes.broadcast(embeds.contiguous())
            yield

    @contextlib.contextmanager
    def _all(self, command: Command, numbers: Sequence[int]) -> Iterator[None]:
        with self._together.lock:
            if self._together.closed:
                raise CapacityError(self._together.closed)
            if self._number != self._together.engines:
                raise ConfigError("A newer engine runs on this model, which several processes share; use that one.")
            try:
                _send(self._processes, command, numbers)
                yield
            except BaseException as error:
                self._together.closed = (
                    f"The processes that share the model are no longer in step, since one of them failed ({error}); "
                    "start all of them again."
                )
                if isinstance(error, Exception):
                    raise CapacityError(self._together.closed) from error
                raise


def run_worker(model: EngineModel) -> bool:
    """In all processes but the first of those that share `model`: run the commands of its engine until it exits.

    Returns True then. In the first process, and for a model that is whole, returns False at once. Signals that ask
    for an end are for the first process, which may grant answers some more time, and are ignored meanwhile.

    Raises Qwen2AudioError where the first process has gone without a word.
    """
    together = tensor_parallel_group(model)
    if together is None or together.processes.first:
        return False
    with _signals_ignored(), torch.no_grad():
        try:
            _run_commands(model, together.processes)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = re.sub(r"^\[[^]]*\] ", "", str(error)).partition(". ")[0]  # gloo puts its source line first
            raise Qwen2AudioError(f"Process 0, which has the engine, is gone ({reason}); this one leaves.") from error
    return True


def _run_commands(model: EngineModel, processes: Processes) -> None:
    storage: PagedStorage | None = None
    width = model.config.text_config.hidden_size
    while True:
        command, numbers = _receive(processes)
        if command == Command.EXIT:
            return
        if command == Command.INIT:
            storage = None  # free the old one first
            storage = storage_for(model.language_model, numbers[0])
            continue
        assert storage is not None
        if command == Command.COPY:
            storage.copy_block(*numbers)
        elif command == Command.ZERO:
            storage.clear(numbers)
        else:
            batch = ForwardBatch.of(numbers)
            embeds = torch.empty(1, sum(batch.query_lens), width, dtype=model.dtype, device=model.device)
            batch.run(model, storage, processes.broadcast(embeds))


def _send(processes: Processes, command: Command, numbers: Sequence[int]) -> None:
    message = torch.tensor([len(numbers), command, *numbers])
    rest = message[FIRST_MESSAGE:].clone()
    first = torch.zeros(FIRST_MESSAGE, dtype=torch.int64)
    first[: len(message)] = message[:FIRST_MESSAGE]
    processes.broadcast(first)
    if len(rest):
        processes.broadcast(rest)


def _receive(processes: Processes) -> tuple[Command, list[int]]:
    first = processes.broadcast(torch.zeros(FIRST_MESSAGE, dtype=torch.int64))
    count, command, *numbers = first.tolist()
    missing = count + 2 - FIRST_MESSAGE
    if missing > 0:
        numbers += processes.broadcast(torch.zeros(missing, dtype=torch.int64)).tolist()
    return Command(command), numbers[:count]


def _end(together: TensorParallelGroup) -> None:
    """At the first process's exit: let the others leave."""
    if not together.lock.acquire(timeout=LAST_PASS_SECONDS):
        return  # a pass that does not end: the connections close with this process
    try:
        if not together.closed:
            together.closed = "This process is ending, and takes no more requests."
            with contextlib.suppress(RuntimeError):
                _send(together.processes, Command.EXIT, ())
    finally:
        together.lock.release()


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
