"""http://host/声音.wav was "ordinal not in range": path, query, host and redirects as browsers send them."""

from __future__ import annotations

import asyncio
import io
import threading
import wave
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import unquote

import pytest

from qwen2_audio.audio import load
from qwen2_audio.audio.urls import browser_url
from qwen2_audio.errors import AudioError
from qwen2_audio.serve.errors import ApiError
from qwen2_audio.serve.safe_fetch import fetch
from qwen2_audio.serve.settings import FetchPolicy


def wav() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(bytes(3200))
    return file.getvalue()


class Handler(BaseHTTPRequestHandler):
    paths: ClassVar[list[str]] = []

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.paths.append(self.path)
        raw = unquote(self.path) == "/to/声音"
        self.send_response(302 if raw else 200)
        if raw:  # the bytes of UTF-8 in the header, as many servers write them
            self.send_header("Location", "/音 1.wav".encode().decode("latin-1"))
        self.send_header("Content-Length", "0" if raw else str(len(wav())))
        self.end_headers()
        self.wfile.write(b"" if raw else wav())


@pytest.fixture
def host() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Handler.paths = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def fetch_by_server(url: str) -> bytes:
    return asyncio.run(fetch(url, FetchPolicy(private_hosts=("127.0.0.1",)), 100_000, lambda size: None))


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/声音.wav", "/%E5%A3%B0%E9%9F%B3.wav"),
        ("/a b.wav?title=Grüße an", "/a%20b.wav?title=Gr%C3%BC%C3%9Fe%20an"),
        ("/a%20b.wav?x=1%202&y=a+b", "/a%20b.wav?x=1%202&y=a+b"),
        ("/it's|a[1].wav?q='", "/it's|a[1].wav?q=%27"),
        ("/ä.wav#part", "/%C3%A4.wav"),
        ("?sig=é", "/?sig=%C3%A9"),
    ],
)
def test_the_loader_and_the_server_send_what_browsers_send(host: str, path: str, sent: str) -> None:
    assert len(load(host + path)) == 1600
    assert fetch_by_server(host + path) == wav()
    assert Handler.paths == [sent, sent]


def test_redirects_may_name_them_too(host: str) -> None:
    assert len(load(host + "/to/声音")) == 1600
    assert fetch_by_server(host + "/to/声音") == wav()
    assert Handler.paths == ["/to/%E5%A3%B0%E9%9F%B3", "/%E9%9F%B3%201.wav"] * 2


def test_hosts_are_written_by_idna_and_nonsense_is_refused() -> None:
    assert browser_url("https://bücher.example:8443/ü?ü#ü") == "https://xn--bcher-kva.example:8443/%C3%BC?%C3%BC"
    assert browser_url("http://[::1]:80/a") == "http://[::1]:80/a"
    for url in (
        "http:///a.wav",
        "http://a b/c",
        "http://a\r\nHost: b/",
        "http://host\\@evil/",
        "http://[::1",
        "http://h:x/",
    ):
        with pytest.raises(ValueError, match=r"host|control|IPv6|Port"):
            browser_url(url)
        with pytest.raises(AudioError, match="is not a URL that can be fetched"):
            load(url)
        with pytest.raises(ApiError, match="is not a URL"):
            fetch_by_server(url)
