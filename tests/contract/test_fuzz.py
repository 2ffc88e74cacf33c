"""Hundreds of requests that no client means, or 10,000 (`make test-all`). QWEN2_AUDIO_FUZZ_FROM=n begins at n.

None is answered by a 5xx (but a stated lack of capacity), none hangs, memory stays flat, and a healthy request is
answered right after. The clips are really decoded. QWEN2_AUDIO_FUZZ_MODEL=nano asks the real engine, not the fake one.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import time

import httpx2 as httpx
import pytest

from kit.fake_backend import FakeBackend
from kit.fuzz_requests import Case, Fuzz, dumps, post
from kit.live_server import live
from qwen2_audio.serve.settings import FetchPolicy, Settings

FIRST = int(os.environ.get("QWEN2_AUDIO_FUZZ_FROM", "0"))
SECONDS = 20.0  # in which every request is answered
CAPACITY = {"deadline_exceeded", "shutting_down"}
HEALTHY = post("/v1/chat/completions", dumps({"messages": [{"role": "user", "content": "say alive"}], "max_tokens": 4}))


@pytest.fixture(scope="module")
def fuzzed():
    model = os.environ.get("QWEN2_AUDIO_FUZZ_MODEL")
    if model:
        from qwen2_audio.api.loading import load
        from qwen2_audio.api.service import Service

        chat = load(model, enable_prefix_caching=False)
        backend = Service(chat.model, chat.processor, name="fake")
    else:
        backend = FakeBackend()
    settings = Settings(fetch=FetchPolicy(seconds=2), body_seconds=3, deadline=SECONDS / 2, grace=1)
    with live(backend, settings) as server:
        yield server


def send(port: int, case: Case) -> tuple[int | None, bytes]:
    """Status and body of the answer; None where the case does not wait for one, or the server rightly hung up."""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        try:
            connection.sendall(case.data[: case.cut])
            if case.close:
                return None, b""
            if case.cut is not None:
                connection.shutdown(socket.SHUT_WR)
            data = b""
            while block := connection.recv(65536):
                data += block
        except (ConnectionResetError, BrokenPipeError):
            return None, b""
    head, _, body = data.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else None), body


def check(number: int, case: Case, status: int | None, body: bytes) -> None:
    context = f"case {number} ({case.kind}): {status} {body[:300]!r}"
    if status is not None and status >= 500:
        assert status == 503 and json.loads(body)["error"]["code"] in CAPACITY, context
    if status is not None and 400 <= status < 500 and body.startswith(b"{"):
        error = json.loads(body)["error"]
        assert set(error) == {"message", "type", "param", "code"} and error["message"], context
    assert b"failed on this request" not in body, context  # a fault inside a stream


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("count", [600, pytest.param(10_000, marks=pytest.mark.exhaustive)])
def test_nothing_breaks_the_server(fuzzed, count):
    fuzz, seen = Fuzz(), {}
    early = None
    for number in range(FIRST, FIRST + count):
        case = fuzz.case(number)
        status, body = send(fuzzed.port, case)
        check(number, case, status, body)
        seen[status] = seen.get(status, 0) + 1
        if number % 200 == 199:
            status, body = send(fuzzed.port, Case("healthy", HEALTHY))
            assert status == 200 and json.loads(body)["choices"], f"after case {number}"
        if number - FIRST == count // 3:
            early = resident()
    assert resident() - early < 200e6, "memory grows"
    assert {200, 400, 404, None} <= set(seen), seen
    assert sum(seen.values()) == count
    deadline = time.monotonic() + SECONDS
    while fuzzed.state.requests:
        assert time.monotonic() < deadline, "a request is still counted"
        time.sleep(0.02)
    assert fuzzed.state.reserved_bytes == 0
    if count > 1000:
        print({str(key): count for key, count in sorted(seen.items(), key=str)})


def test_a_bomb_of_silence_takes_little_memory(fuzzed):
    """An hour in a few MB, 230 as samples: not for chat, and transcribed as it is read."""
    bomb = silence_flac(3600)
    assert len(bomb) < 4e6
    before = resident()
    clip = {"type": "input_audio", "input_audio": {"data": base64.b64encode(bomb).decode(), "format": "flac"}}
    asked = {"model": "fake", "messages": [{"role": "user", "content": [clip]}]}
    answer = httpx.post(f"{fuzzed.url}/v1/chat/completions", json=asked, timeout=30)
    assert answer.status_code == 400 and "600 s" in answer.json()["error"]["message"]
    answer = httpx.post(
        f"{fuzzed.url}/v1/audio/transcriptions", files={"file": ("a.flac", bomb)}, data={"model": "fake"}, timeout=60
    )
    assert answer.status_code == 200 and answer.json()["text"] == ""
    assert resident() - before < 150e6


def silence_flac(seconds: int) -> bytes:
    import io

    import av
    import numpy as np

    file = io.BytesIO()
    with av.open(file, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        silence.rate = 8000
        for second in range(seconds):
            silence.pts = second * 8000
            container.mux(stream.encode(silence))
        container.mux(stream.encode(None))
    return file.getvalue()
