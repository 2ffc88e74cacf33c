"""The runner of this machine: workers in processes of their own, so that a clip that crashes one costs its row only."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait

from ..errors import JobError
from .runner import About, JobRow, Outcome, Work
from .suspects import Suspects

START_DEATHS = 5  # in a row, of workers that were given no row yet
GIVEN_UP = 20  # rows in a row: then it is not the rows
_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)


class InProcesses:
    """See `runner.Runner`. `count`: workers, which share the machine's processors, and take its GPUs by turns."""

    def __init__(self, count: int) -> None:
        self._count = count

    def run(self, work: Work, rows: Iterator[JobRow], ready: Callable[[About], None]) -> Generator[Outcome, None, None]:
        """Yields outcomes. Raises JobError where workers die again and again before they have answered anything."""
        team = _Team(self._count, work, rows, ready)
        try:
            yield from team.outcomes()
        finally:
            team.end()


@dataclass(eq=False)
class _Process:
    """A worker, and the rows that are with it."""

    number: int
    popen: subprocess.Popen[bytes]
    connection: Connection
    about: About | None = None
    rows: dict[int, JobRow] = field(default_factory=dict)
    suspected: bool = False  # its rows are
    told_end: bool = False

    def end(self) -> None:
        self.connection.close()
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()


class _Team:
    def __init__(self, count: int, work: Work, rows: Iterator[JobRow], ready: Callable[[About], None]) -> None:
        self._work, self._rows, self._ready = work, rows, ready
        self._exhausted = False
        self._suspects = Suspects()
        self._start_deaths = self._given_up = 0
        self._environment = _environment(count)
        self._processes: list[_Process] = []
        for number in range(count):
            self._processes.append(self._start(number))

    def outcomes(self) -> Iterator[Outcome]:
        while True:
            for process in list(self._processes):
                yield from self._give(process)
            if not self._processes:
                return
            for connection in wait([process.connection for process in self._processes]):
                process = next(item for item in self._processes if item.connection is connection)
                yield from self._hear(process)

    def _start(self, number: int) -> _Process:
        ours, theirs = socket.socketpair()
        with theirs:
            popen = subprocess.Popen(
                [sys.executable, "-m", "qwen2_audio.jobs.process_worker", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, stdout=2, env=self._environment,
            )  # fmt: skip
        process = _Process(number, popen, Connection(ours.detach()))
        with contextlib.suppress(OSError):  # it is dead already, which its end of the socket says next
            process.connection.send((self._work, number))
        return process

    def _give(self, process: _Process) -> Iterator[Outcome]:
        """Rows for a worker that has room; its end where there are none left."""
        if process.about is None or process.told_end:
            return
        rows = self._next_rows(process)
        process.rows |= {row.number: row for row in rows}
        is_last = not process.rows and self._exhausted and not self._suspects and not self._others_busy(process)
        try:
            if rows:
                process.connection.send(rows)
            elif is_last:
                process.told_end = True
                process.connection.send(None)
        except OSError:
            yield from self._bury(process)

    def _next_rows(self, process: _Process) -> list[JobRow]:
        assert process.about is not None
        if not process.rows:
            suspects = self._suspects.take()
            process.suspected = bool(suspects)
            if suspects:
                return suspects
        elif process.suspected or len(process.rows) > process.about.window // 2:
            return []  # suspects are asked with nothing else; and rows are sent many at a time
        rows: list[JobRow] = []
        while not self._exhausted and len(process.rows) + len(rows) < process.about.window:
            row = next(self._rows, None)
            if row is None:
                self._exhausted = True
            else:
                rows.append(row)
        return rows

    def _others_busy(self, process: _Process) -> bool:
        """Whether another worker has rows, which may come back as suspects when it dies."""
        return any(other.rows for other in self._processes if other is not process)

    def _hear(self, process: _Process) -> Iterator[Outcome]:
        """One message of a worker, or its death."""
        try:
            message = process.connection.recv()
        except (EOFError, OSError):
            yield from self._bury(process)
            return
        if isinstance(message, Exception):
            raise message
        if isinstance(message, About):
            process.about = message
            self._ready(message)
            return
        self._start_deaths = self._given_up = 0
        process.rows.pop(message.number, None)
        self._suspects.answered(message.number)
        yield message

    def _bury(self, process: _Process) -> Iterator[Outcome]:
        """A worker is gone: its rows are suspects, and another takes its place where there is work left."""
        self._processes.remove(process)
        process.connection.close()
        try:
            status = process.popen.wait(timeout=10)
        except subprocess.TimeoutExpired:  # it closed its socket and lives on
            process.popen.kill()
            status = process.popen.wait()
        if process.told_end:
            return
        if not process.rows:
            self._start_deaths += 1
            if self._start_deaths >= START_DEATHS:
                raise JobError(
                    f"The worker died {self._start_deaths} times before it answered anything, by {how(status)}; see "
                    "what it wrote above. Is there memory enough for the model?"
                )
        given_up = self._suspects.died(process.rows.values(), crashed=_is_crash(status), how=how(status))
        yield from given_up
        self._given_up += len(given_up)
        if self._given_up >= GIVEN_UP:
            raise JobError(
                f"{self._given_up} rows one after another killed their worker, the last by {how(status)}: it is not "
                "the rows; see what the worker wrote above."
            )
        self._processes.append(self._start(process.number))

    def end(self) -> None:
        for process in self._processes:
            process.end()
        self._processes.clear()


def how(status: int) -> str:
    """A process's end in words: "signal 11 (SIGSEGV)", "exit status 70"."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {-status} ({signal.Signals(-status).name})"
    except ValueError:
        return f"signal {-status}"


def _is_crash(status: int) -> bool:
    """Whether the process itself is to blame: a fault, or an exception that ended it; else it was killed."""
    return status > 0 or -status in _CRASHES


def _environment(count: int) -> dict[str, str]:
    """That of this process; the workers find the same modules, and share the processors."""
    threads = max(1, (os.cpu_count() or 1) // count)
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    shared = {"OMP_NUM_THREADS": str(threads)} if count > 1 else {}
    return {**shared, **os.environ, "PYTHONPATH": path}
