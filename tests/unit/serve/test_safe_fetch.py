"""Clips from the web, against a web server that says exactly what a test wants it to."""

import asyncio
import socket
import threading

import pytest

from qwen2_audio.serve import safe_fetch
from qwen2_audio.serve.errors import ApiError
from qwen2_audio.serve.safe_fetch import fetch
from qwen2_audio.serve.settings import FetchPolicy

HERE = FetchPolicy(private_hosts=("127.0.0.1",), seconds=3, redirects=2)


@pytest.fixture
def web():
    """web(b"HTTP/1.1 200 ...", ...) -> the URL of a server that sends these in turn; web.requests: what it received."""
    listeners = []
    requests = []

    def start(*answers: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def run() -> None:
            for answer in answers:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    requests.append(connection.recv(65536))
                    connection.sendall(answer)

        threading.Thread(target=run, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    start.requests = requests
    yield start
    for listener in listeners:
        listener.close()


def get(url: str, policy: FetchPolicy = HERE, limit: int = 1000, reserve=lambda size: None) -> bytes:
    return asyncio.run(fetch(url, policy, limit, reserve))


def test_a_body_of_known_and_of_unknown_length(web):
    url = web(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
    assert get(url + "/dog.wav?x=1 2".replace(" ", "%20")) == b"abc"
    assert get(url) == b"until the end"
    assert web.requests[0].startswith(b"GET /dog.wav?x=1%202 HTTP/1.1\r\n")
    assert b"Host: 127.0.0.1:" in web.requests[0]


def test_memory_is_reserved_as_bytes_come(web):
    """Also for a body without a length; if memory is short, the rest is not read."""
    reserved = []

    def reserve(size: int) -> None:
        reserved.append(size)
        if sum(reserved) > 70_000:
            raise ApiError("memory is short", status=429)

    head = b"HTTP/1.1 200 OK\r\n\r\n"
    assert len(get(web(head + bytes(70_000)), limit=1 << 20, reserve=reserve)) == sum(reserved) == 70_000
    with pytest.raises(ApiError, match="memory is short"):
        get(web(head + bytes(1000)), limit=1 << 20, reserve=reserve)


def test_a_chunked_body(web):
    assert (
        get(web(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")) == b"abcde"
    )


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", "larger than 1,000 bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001, "larger than 1,000 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "broke off"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "HTTP 404"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "HTTP 204"),
        (b"SSH-2.0-OpenSSH\r\n", "does not speak HTTP"),
        (b"", "broke off"),
        (b"HTTP/1.1 302 Found\r\nLocation: ftp://example.org/x\r\n\r\n", "nothing else is fetched"),
        (b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n", "nothing else is fetched"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.2/x\r\n\r\n", "not on the public internet"),
    ],
)
def test_refusals(web, answer, words):
    with pytest.raises(ApiError, match=words) as refused:
        get(web(answer))
    assert refused.value.status == 400


def test_redirects_have_an_end(web):
    again = b"HTTP/1.1 302 Found\r\nLocation: /again\r\n\r\n"
    with pytest.raises(ApiError, match="more than 2 times"):
        get(web(again, again, again, again))
    assert len(web.requests) == 3


def test_a_redirect_out_of_the_allowed_domains(web):
    policy = FetchPolicy(private_hosts=("127.0.0.1",), domains=("127.0.0.1",))
    with pytest.raises(ApiError, match="none of the domains"):
        get(web(b"HTTP/1.1 302 Found\r\nLocation: http://example.org/x\r\n\r\n"), policy)


def test_the_connection_goes_to_the_address_that_was_checked(web, monkeypatch):
    """Whatever the name means a moment later."""
    url = web(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    seen = []

    async def resolve(host, port, policy):
        seen.append(host)
        return ["127.0.0.1"]

    monkeypatch.setattr(safe_fetch, "resolve", resolve)
    assert get(url.replace("127.0.0.1", "rebinding.example")) == b"ok"
    assert seen == ["rebinding.example"]


@pytest.mark.parametrize(
    "url",
    ["http://", "http:///x", "http://[::1", "http://127.0.0.1:99999/", "http://a b/", "http://x\r\nHost: y/",
     "gopher://x/", "http://u@127.0.0.1/", "https:/x", "http://\udcff/"],
)  # fmt: skip
def test_what_is_no_url(url):
    with pytest.raises(ApiError):
        get(url)


def test_no_web_at_all():
    with pytest.raises(ApiError, match="fetches no clips"):
        get("http://127.0.0.1/", FetchPolicy(web=False))


def test_a_certificate_must_be_the_names():
    """TLS to a server that has none in order."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 400 no TLS here\r\n\r\n")

        threading.Thread(target=run, daemon=True).start()
        with pytest.raises(ApiError, match="TLS is not in order"):
            get(f"https://127.0.0.1:{listener.getsockname()[1]}/")
