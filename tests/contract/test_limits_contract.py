"""Limits for clients: the memory of clips they link to, streams they do not read; and what they get at a shutdown."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import httpx2 as httpx
import pytest

from kit.clip_files import wav_bytes
from kit.fake_backend import FakeBackend
from kit.fuzz_requests import dumps, post
from kit.live_server import live, wait_for
from qwen2_audio.serve import event_stream, run
from qwen2_audio.serve.settings import FetchPolicy, Settings

SIZE = len(wav_bytes())


def chat(text: str, **fields):
    return {"messages": [{"role": "user", "content": text}], **fields}


def named(*urls: str, text: str = ""):
    content = [{"type": "audio_url", "audio_url": {"url": url}} for url in urls]
    return {"messages": [{"role": "user", "content": [*content, {"type": "text", "text": text or "What is it?"}]}]}


@pytest.fixture
def backend():
    return FakeBackend()


# -- clips that requests link to


@pytest.fixture
def web():
    """The URL of a server that gives every path the same second of sound."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\n\r\n" + wav_bytes()

    def run() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

    threading.Thread(target=run, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()


@pytest.fixture
def url(request, web, folder):
    return web if request.param == "web" else f"file://{folder}/dog.wav"


def policy(folder):
    return FetchPolicy(private_hosts=("127.0.0.1",), folder=folder, seconds=20)


@pytest.mark.parametrize("url", ["web", "file"], indirect=True)
@pytest.mark.parametrize("stream", [False, True])
def test_linked_clips_count_until_the_request_ends(serving, backend, folder, url, stream):
    _, server = serving(fetch=policy(folder))
    body = {**named(url, url, text="hang"), "stream": stream}
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(post("/v1/chat/completions", dumps(body)))
        wait_for(lambda: backend.open)
        assert server.state.reserved_bytes == len(dumps(body)) + 2 * SIZE
    wait_for(lambda: server.state.requests == 0)
    assert server.state.reserved_bytes == 0


@pytest.mark.parametrize("url", ["web", "file"], indirect=True)
def test_linked_clips_are_refused_if_other_requests_hold_the_memory(serving, backend, folder, url):
    client, server = serving(fetch=policy(folder), max_reserved_bytes=3 * SIZE)
    assert client.post("/v1/chat/completions", json=named(*[url] * 4)).status_code == 200  # alone
    wait_for(lambda: not backend.open)  # else the next wait could meet this request
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(post("/v1/chat/completions", dumps(named(url, url, text="hang"))))
        wait_for(lambda: backend.open)
        before = server.state.reserved_bytes
        full = client.post("/v1/chat/completions", json=named(url))
        assert (full.status_code, full.json()["error"]["code"]) == (429, "overloaded")
        assert int(full.headers["retry-after"]) > 0
        assert server.state.reserved_bytes == before
    wait_for(lambda: server.state.requests == 0)
    assert server.state.reserved_bytes == 0


@pytest.mark.parametrize("url", ["web", "file"], indirect=True)
def test_a_request_names_no_more_than_it_may_send(serving, folder, url):
    client, server = serving(fetch=policy(folder), body_bytes=2 * SIZE + 100, clip_bytes=SIZE + 10)
    assert client.post("/v1/chat/completions", json=named(url, url)).status_code == 200
    began = time.monotonic()
    much = client.post("/v1/chat/completions", json=named(url, url, url))
    assert (much.status_code, much.json()["error"]["code"]) == (413, "clip_too_large")
    assert "together larger than" in much.json()["error"]["message"]
    assert time.monotonic() - began < 4  # it does not wait for a body that has arrived
    assert server.state.reserved_bytes == 0


# -- clients that do not read


def stuck(server):
    """A client that requests a stream of half a megabyte and reads nothing of it."""
    server.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", server.port))
    words = "say " + " x" * 256
    connection.sendall(post("/v1/chat/completions", dumps(chat(words, stream=True, logprobs=True, top_logprobs=20))))
    return connection


def test_a_stream_that_nobody_reads_frees_its_memory_after_the_deadline(serving, backend, monkeypatch):
    monkeypatch.setattr(event_stream, "_AFTER_DEADLINE", 0.2)
    monkeypatch.setattr(run, "_STALL_SECONDS", 1000)
    client, server = serving(deadline=1.0, concurrency=1)
    with stuck(server):
        wait_for(lambda: backend.ends)
        assert client.post("/v1/chat/completions", json=chat("say hi")).status_code == 429
        wait_for(lambda: server.state.requests == 0)
        assert client.post("/v1/chat/completions", json=chat("say hi")).status_code == 200


def test_a_connection_that_takes_nothing_is_broken_off(serving, backend, monkeypatch):
    monkeypatch.setattr(run, "_STALL_SECONDS", 0.3)
    _, server = serving()
    with stuck(server):
        wait_for(lambda: backend.ends)
        wait_for(lambda: server.state.requests == 0 and not server.server.server_state.connections)


def test_a_stream_ends_with_its_backend_too_slow_to_keep_the_deadline(monkeypatch):
    """The request is cancelled, and nothing waits for it."""
    cancelled = []

    class Handle:
        done = False

        def cancel(self):
            cancelled.append(True)

    async def never():
        await asyncio.sleep(60)
        yield b""

    async def ask():
        monkeypatch.setattr(event_stream, "_AFTER_DEADLINE", 0.1)
        now = asyncio.get_running_loop().time()
        answer = event_stream.EventStream(never(), Handle(), Settings(deadline=0.1), now)

        async def send(message):
            pass

        with pytest.raises(event_stream.ClientGoneError):
            await answer({"type": "http"}, asyncio.Event().wait, send)

    asyncio.run(ask())
    assert cancelled


# -- a stop


def test_a_stop_is_told_to_those_who_ask_while_answers_finish(serving, backend):
    client, server = serving(grace=20)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(post("/v1/chat/completions", dumps(chat("hang"))))
        wait_for(lambda: backend.open)
        assert client.get("/ready").status_code == 200
        server.server.should_exit = True
        wait_for(lambda: server.state.closing)
        time.sleep(0.3)
        with httpx.Client(base_url=server.url, timeout=30) as stranger:
            for asking in (client, stranger):  # a connection that was there, and a new one
                ready = asking.get("/ready")
                assert (ready.status_code, ready.json()["error"]["code"]) == (503, "shutting_down")
                assert asking.post("/v1/chat/completions", json=chat("say hi")).status_code == 503
                assert asking.get("/health").status_code == 200
    server.thread.join(10)  # the one that ran has left: nothing is waited for
    assert backend.closed and not server.thread.is_alive()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=1)


def test_a_stop_takes_the_grace_and_no_longer(serving, backend):
    _, server = serving(grace=0.5)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(post("/v1/chat/completions", dumps(chat("hang"))))
        wait_for(lambda: backend.open)
        server.server.should_exit = True
        server.thread.join(10)
        assert not server.thread.is_alive()
        assert b" 503 " in connection.recv(100)


# -- numbers at their ends


@pytest.fixture(scope="module")
def nano():
    from qwen2_audio.api.loading import load
    from qwen2_audio.api.service import Service

    loaded = load("nano", enable_prefix_caching=False)
    service = Service(loaded.model, loaded.processor, name="nano")
    with live(service, Settings(grace=1)) as server, httpx.Client(base_url=server.url, timeout=120) as client:
        yield client


def test_the_smallest_temperature_is_greedy(nano):
    cold, greedy = (
        nano.post("/v1/chat/completions", json=chat("Hi", max_tokens=3, temperature=heat)) for heat in (1e-40, 0)
    )
    assert cold.status_code == greedy.status_code == 200, cold.text
    assert cold.json()["choices"] == greedy.json()["choices"]


def test_the_largest_seed_has_answers_behind_it(nano):
    body = chat("Hi", max_tokens=3, temperature=1.0, seed=2**64 - 1, n=2)
    first, again = (nano.post("/v1/chat/completions", json=body) for _ in range(2))
    assert first.status_code == again.status_code == 200, first.text
    assert [choice["index"] for choice in first.json()["choices"]] == [0, 1]
    assert first.json()["choices"] == again.json()["choices"]
