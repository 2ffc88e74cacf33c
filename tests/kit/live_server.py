"""A real server on a real socket, in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from qwen2_audio.serve.app import create_app
from qwen2_audio.serve.run import Address, Server, listening
from qwen2_audio.serve.settings import Settings


class Live:
    def __init__(
        self, backend, settings: Settings | None = None, address: Address | None = None, words=None, app=None
    ) -> None:
        """`words`: the checkpoint's Capabilities; `app`: in place of the server of `backend`."""
        address = address or Address(port=0)
        self.app = app or create_app(backend, settings, words)
        self.listener = listening(address)
        self.url = address.at(self.listener)
        self.port = self.listener.getsockname()[1]
        self.server = Server(self.app, address)
        self.thread = threading.Thread(target=self.server.run, args=([self.listener],), daemon=True)
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive()
            time.sleep(0.005)

    @property
    def state(self):
        return self.app.state.server

    def stop(self) -> None:
        """As SIGTERM does."""
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()


@contextmanager
def live(backend, settings: Settings | None = None, address: Address | None = None, words=None) -> Iterator[Live]:
    running = Live(backend, settings, address, words)
    try:
        yield running
    finally:
        running.stop()


def wait_for(condition, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)
