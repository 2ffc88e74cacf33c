"""A worker in a process of its own: `python -m qwen2_audio.jobs.process_worker SOCKET`, started by `process_runner`.

It talks over a socket that it inherits. It is sent a (Work, number), then lists of rows, then None; it sends About, or
the exception that loading ended with, then an Outcome for each row. When the socket closes, the driver is gone, and
it ends.
"""

from __future__ import annotations

import faulthandler
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection

from ..errors import Qwen2AudioError
from .runner import JobRow, make_worker

_Inbox = queue.SimpleQueue[JobRow | None]


def main(descriptor: int) -> int:
    """Serve the driver at the other end of the socket. Returns the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is the driver's, who then closes the socket
    faulthandler.enable()
    with Connection(descriptor) as connection:
        work, number = connection.recv()
        try:
            worker = make_worker(work, number)
        except Exception as error:
            connection.send(_picklable(error))
            return 0
        connection.send(worker.about)
        inbox: _Inbox = queue.SimpleQueue()
        threading.Thread(target=_receive, args=(connection, inbox), daemon=True).start()
        try:
            for outcome in worker.answer(_rows(inbox)):
                connection.send(outcome)
        except Qwen2AudioError as error:  # of what no row could be asked with
            connection.send(_picklable(error))
            return 0
        worker.close()
    return 0


def _receive(connection: Connection, inbox: _Inbox) -> None:
    try:
        while (rows := connection.recv()) is not None:
            for row in rows:
                inbox.put(row)
    except (EOFError, OSError):
        os._exit(1)  # the driver is gone, and nobody waits for an answer
    inbox.put(None)


def _rows(inbox: _Inbox) -> Iterator[JobRow | None]:
    """The rows as they come, None where there is none at present; ends with the driver's None."""
    while True:
        try:
            item = inbox.get_nowait()
        except queue.Empty:
            yield None
            continue
        if item is None:
            return
        yield item


def _picklable(error: Exception) -> Exception:
    """An error of ours as it is, which the driver raises again; any other one by its name and sentence."""
    if isinstance(error, Qwen2AudioError):
        try:
            return type(error)(str(error))
        except TypeError:
            return Qwen2AudioError(str(error))
    return RuntimeError(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    try:
        sys.exit(main(int(sys.argv[1])))
    except (BrokenPipeError, ConnectionResetError, EOFError):
        sys.exit(1)
