"""What a server on a real socket does with the rude, the impatient and the many."""

from __future__ import annotations

import socket
import threading
import time

import httpx2 as httpx
import pytest

from kit.fake_backend import FakeBackend
from kit.fuzz_requests import dumps, post
from kit.live_server import live, wait_for
from qwen2_audio.serve.settings import FetchPolicy, Settings


def chat(text: str, **fields):
    return {"model": "fake", "messages": [{"role": "user", "content": text}], **fields}


@pytest.fixture
def backend():
    return FakeBackend()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("text", ["hang", "loop"])
def test_a_client_that_leaves_frees_its_slot(serving, backend, stream, text):
    client, server = serving()
    backend.delay = 0.002
    request = post("/v1/chat/completions", dumps(chat(text, stream=stream, max_tokens=100_000)))
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(request)
        wait_for(lambda: backend.open)
        time.sleep(0.05)
    wait_for(lambda: not backend.open, 2)
    assert backend.ends == ["cancelled"]
    wait_for(lambda: server.state.requests == 0)
    assert client.post("/v1/chat/completions", json=chat("say alive")).status_code == 200


def test_a_client_that_leaves_while_its_clip_is_fetched(serving, backend):
    """A web server that accepts and sends nothing; the client disconnects."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x.wav"
        client, server = serving(fetch=FetchPolicy(private_hosts=("127.0.0.1",), seconds=30))
        content = [{"type": "audio_url", "audio_url": {"url": url}}]
        with pytest.raises(httpx.TimeoutException):
            client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": content}]}, timeout=0.3)
        wait_for(lambda: server.state.requests == 0, 2)
        assert not backend.seen


def test_a_web_server_that_dawdles_is_given_up(serving):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x.wav"
        client, _ = serving(fetch=FetchPolicy(private_hosts=("127.0.0.1",), seconds=0.3))
        content = [{"type": "audio_url", "audio_url": {"url": url}}]
        answer = client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": content}]})
        assert answer.status_code == 400 and "did not arrive within 0.3 s" in answer.json()["error"]["message"]


def test_the_deadline_ends_an_answer(serving, backend):
    client, _ = serving(deadline=0.3)
    answer = client.post("/v1/chat/completions", json=chat("hang"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "deadline_exceeded")
    assert answer.headers["x-should-retry"] == "false"
    assert backend.ends == ["deadline"]


def test_a_full_queue_and_too_many_requests_are_told_to_come_back(serving, backend):
    client, server = serving(concurrency=2)
    backend.waiting = 1
    first = threading.Thread(target=client.post, args=("/v1/chat/completions",), kwargs={"json": chat("late word")})
    first.start()
    wait_for(lambda: backend.open)
    full = client.post("/v1/chat/completions", json=chat("say hi"))
    assert (full.status_code, full.json()["error"]["code"]) == (429, "queue_full")
    assert full.json()["error"]["type"] == "rate_limit_error" and int(full.headers["retry-after"]) > 0
    server.state.requests += 1
    busy = client.post("/v1/chat/completions", json=chat("say hi"))
    assert (busy.status_code, busy.json()["error"]["code"]) == (429, "overloaded")
    server.state.requests -= 1
    first.join()
    assert client.get("/health").status_code == 200


def test_bodies_that_are_too_large_or_too_many(serving):
    client, server = serving(body_bytes=1000, max_reserved_bytes=1500)
    assert client.post("/v1/chat/completions", json=chat("say " + "x" * 2000)).status_code == 413

    def endless():
        for _ in range(100):
            yield b" " * 100

    headers = {"content-type": "application/json"}
    assert client.post("/v1/chat/completions", content=endless(), headers=headers).status_code == 413
    server.state.requests, server.state.reserved_bytes = 1, 1000
    assert client.post("/v1/chat/completions", json=chat("say " + "x" * 800)).status_code == 429
    server.state.requests = server.state.reserved_bytes = 0


def test_a_client_that_sends_before_it_reads_learns_that_it_was_too_much(serving):
    _, server = serving(body_bytes=4_000_000)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(post("/v1/chat/completions", b" " * 12_000_000))
        assert b" 413 " in connection.recv(100)


def test_faults_are_told_to_the_log_and_not_to_the_client(serving, backend, monkeypatch, caplog):
    client, server = serving()

    def submit(*_, **__):
        raise KeyError("a secret of the server")

    monkeypatch.setattr(backend, "submit", submit)
    for _ in range(2):  # on one connection: it is not broken
        answer = client.post("/v1/chat/completions", json=chat("say hi"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
        assert "secret" not in answer.text
    assert caplog.text.count("A request failed") == 2 and "Exception in ASGI" not in caplog.text
    assert server.state.requests == 0


def test_a_body_that_does_not_come(serving):
    _, server = serving(body_seconds=0.2)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(post("/v1/chat/completions", b"{", length="9"))
        connection.settimeout(5)
        assert b" 408 " in connection.recv(4096)
    wait_for(lambda: server.state.requests == 0)


def test_small_pieces_are_sent_at_once(serving):
    """Nagle's algorithm would hold the first token back by 40 ms."""
    client, server = serving()
    assert client.get("/health").status_code == 200
    (connection,) = server.server.server_state.connections
    assert connection.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_connection_that_says_nothing_is_closed_and_one_that_asks_is_not(serving, monkeypatch):
    monkeypatch.setattr("qwen2_audio.serve.run._HEAD_SECONDS", 0.3)
    client, server = serving()
    client.get("/health")
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as silent:
        assert silent.recv(1) == b""
    (connection,) = server.server.server_state.connections
    assert client.get("/health").status_code == 200
    assert server.server.server_state.connections == {connection}


def test_silence_on_a_stream_is_broken_by_comments(serving):
    client, _ = serving(ping=0.1)
    with client.stream("POST", "/v1/chat/completions", json=chat("late word", stream=True)) as answer:
        text = answer.read().decode()
    assert text.startswith(": still working\n\n") and "word" in text and text.endswith("data: [DONE]\n\n")


def test_a_stop_lets_answers_finish_and_turns_others_away(serving, backend):
    client, server = serving(grace=5)
    answers = []
    running = threading.Thread(
        target=lambda: answers.append(client.post("/v1/chat/completions", json=chat("late words come")))
    )
    running.start()
    wait_for(lambda: backend.open)
    assert client.get("/ready").status_code == 200
    server.server.should_exit = True
    running.join()
    assert answers[0].status_code == 200 and answers[0].json()["choices"][0]["message"]["content"] == "words come"
    server.thread.join(5)
    assert backend.closed and not server.thread.is_alive()


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_ends_what_takes_too_long(serving, backend, stream):
    client, server = serving(grace=0.2, ping=0.05)
    answers = []
    running = threading.Thread(
        target=lambda: answers.append(client.post("/v1/chat/completions", json=chat("hang", stream=stream)))
    )
    running.start()
    wait_for(lambda: backend.open)
    time.sleep(0.1)
    server.server.should_exit = True
    running.join(10)
    assert "shutting_down" in answers[0].text
    assert answers[0].status_code == (200 if stream else 503)
    assert backend.ends == ["cancelled"]


def test_two_hundred_streams_a_third_of_them_left(serving, backend):
    """Every answer ends once, and all memory is free again."""
    _, server = serving()
    backend.delay = 0.005
    words = "say " + " ".join(map(str, range(40)))
    request = post("/v1/chat/completions", dumps(chat(words, stream=True)))
    complete = []

    def run_client(number: int) -> None:
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(request)
            if number % 3 == 0:
                connection.recv(300)
                return
            data = b""
            while block := connection.recv(65536):
                data += block
            complete.append(data.count(b"data: [DONE]") == 1 and data.count(b'"finish_reason":"stop"') == 1)

    threads = [threading.Thread(target=run_client, args=(number,)) for number in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    wait_for(lambda: not backend.open and server.state.requests == 0)
    assert len(backend.ends) == 200
    assert len(complete) == 133 and all(complete)
    assert backend.ends.count("cancelled") + backend.ends.count("stop") == 200
    assert server.state.reserved_bytes == 0


def test_tls(backend, tmp_path):
    import shutil
    import ssl
    import subprocess

    from qwen2_audio.serve.run import Address

    if shutil.which("openssl") is None:
        pytest.skip("makes its certificate with openssl, which is not here")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    address = Address(port=0, certificate=certificate, key=key)
    with live(backend, Settings(), address) as server:
        assert server.url.startswith("https://")
        trust = ssl.create_default_context(cafile=str(certificate))
        assert httpx.get(f"{server.url}/health", verify=trust).json() == {"status": "ok"}
