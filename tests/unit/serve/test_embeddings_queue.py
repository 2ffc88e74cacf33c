"""/v1/embeddings where the queue has room for some of a request's inputs, or for none."""

from __future__ import annotations

import threading

import pytest
from starlette.testclient import TestClient

from kit.fake_backend import VECTOR, FakeBackend
from qwen2_audio.engine.request import RequestHandle
from qwen2_audio.errors import BusyError
from qwen2_audio.serve.app import create_app
from qwen2_audio.serve.settings import Settings
from qwen2_audio.types import Chunk, Usage

TEXTS = ["one", "two", "three", "four", "five"]


class NarrowBackend(FakeBackend):
    """Has room for `room` inputs, each of which takes a moment; others take it after `until` of them, for as long as
    `others` says how often they are met."""

    def __init__(self, room: int, until: int = 100, others: int = 0) -> None:
        super().__init__()
        self.room, self.until, self.others = room, until, others
        self.taken = self.present = self.refused = 0
        self.lock = threading.Lock()

    def submit_embedding(self, source, params, *, timeout=None, priority=0, check_size=None) -> RequestHandle:
        with self.lock:
            crowded = self.taken >= self.until and self.others > 0
            self.others -= crowded
            if crowded or self.present >= self.room:
                self.refused += 1
                raise BusyError("As many wait as may.")
            self.taken += 1
            self.present += 1
        handle = RequestHandle(1, lambda _: None)
        threading.Timer(0.01, self._finish, [handle]).start()
        return handle

    def _finish(self, handle: RequestHandle) -> None:
        with self.lock:
            self.present -= 1
        handle.put(Chunk("", "stop", Usage(20, 0, 0), embedding=VECTOR))


def embed(backend: FakeBackend, deadline: float = 30.0):
    client = TestClient(create_app(backend, Settings(deadline=deadline)), base_url="http://localhost:8000")
    return client.post("/v1/embeddings", json={"input": TEXTS})


@pytest.mark.parametrize(
    "backend",
    [NarrowBackend(1), NarrowBackend(2), NarrowBackend(9, until=1, others=20)],
    ids=["one", "two", "others"],
)
def test_the_rest_waits_for_room(backend):
    answer = embed(backend)
    assert answer.status_code == 200 and [one["index"] for one in answer.json()["data"]] == [0, 1, 2, 3, 4]
    assert backend.taken == len(TEXTS) and backend.refused > 0


def test_a_full_queue_refuses_before_anything_is_computed():
    backend = NarrowBackend(0)
    answer = embed(backend)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
    assert (backend.taken, backend.refused) == (0, 1)


def test_the_rest_waits_no_longer_than_the_deadline():
    backend = NarrowBackend(9, until=2, others=1 << 30)
    answer = embed(backend, deadline=0.3)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "deadline_exceeded") and backend.taken == 2
