"""Sounds over HTTP, from a small server of our own: bytes, redirects, statuses, sizes, silence on the line."""

from __future__ import annotations

import io
import threading
import time
import wave
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from qwen2_audio.audio import Limits, load
from qwen2_audio.errors import AudioError


def wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16000)
        out.writeframes(samples.tobytes())
    return file.getvalue()


SAMPLES = (np.random.default_rng(0).normal(size=40000) * 3000).astype(np.int16)
WAV = wav(SAMPLES)


class Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        assert self.headers["User-Agent"] == "qwen2-audio"
        length = str(len(WAV))
        if self.path == "/a.wav":
            self.answer(200, WAV, Content_Length=length)
        elif self.path == "/unsized":
            self.answer(200, WAV)
        elif self.path == "/short":
            self.answer(200, WAV[:1000], Content_Length=length)
        elif self.path == "/moved":
            self.answer(302, Location="/a.wav")
        elif self.path == "/to-file":
            self.answer(302, Location="file:///etc/hostname")
        elif self.path == "/to-ftp":
            self.answer(302, Location="ftp://example.org/a.wav")
        elif self.path == "/circle":
            self.answer(302, Location="/circle")
        elif self.path == "/slow":
            time.sleep(1)
        elif self.path == "/page":
            self.answer(200, b"<html>please log in</html>")
        elif self.path == "/empty":
            self.answer(200, b"", Content_Length="0")
        else:
            self.answer(int(self.path[1:]))


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.mark.parametrize("path", ["/a.wav", "/unsized", "/moved"])
def test_a_sound_over_http(site: str, path: str) -> None:
    np.testing.assert_array_equal(load(site + path), SAMPLES.astype(np.float32) / 32768)


def test_a_long_download_waits_on_disk(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwen2_audio.audio.fetch.IN_MEMORY", 100)
    assert len(load(site + "/a.wav")) == len(SAMPLES)


REFUSALS = [
    ("/404", "{url} could not be fetched: HTTP 404 Not Found; check the address and your access to it."),
    ("/403", "{url} could not be fetched: HTTP 403 Forbidden;"),
    ("/500", "{url} could not be fetched: HTTP 500 Internal Server Error;"),
    ("/short", f"{{url}} broke off after 1,000 of {len(WAV):,} bytes; try again."),
    (
        "/to-file",
        "{url} could not be fetched: HTTP 302 Found - Redirection to url 'file:///etc/hostname' is not allowed",
    ),
    ("/to-ftp", "{url} redirects to 'ftp://example.org/a.wav'; expected an http or https URL."),
    ("/circle", "{url} could not be fetched: HTTP 302"),
    ("/slow", "{url} could not be fetched: no answer within 0.2 s; try again, or raise the timeout."),
    ("/page", "{url} is an HTML page, not a sound;"),
    ("/empty", "{url} is empty (0 bytes);"),
]


@pytest.mark.parametrize(("path", "text"), REFUSALS)
def test_refusals_name_the_url_and_the_reason(site: str, path: str, text: str) -> None:
    with pytest.raises(AudioError) as caught:
        load(site + path, limits=Limits(timeout=0.2))
    assert str(caught.value).startswith(text.format(url=site + path))


@pytest.mark.parametrize("path", ["/a.wav", "/unsized"])
def test_size_is_capped_announced_or_not(site: str, path: str) -> None:
    with pytest.raises(AudioError, match=f"{path} is larger than the limit of 1,000 bytes"):
        load(site + path, limits=Limits(max_bytes=1000))


def test_deadline_holds_while_fetching(site: str) -> None:
    with pytest.raises(AudioError, match=r"a\.wav took longer to read than the limit of 1e-09 s"):
        load(site + "/a.wav", limits=Limits(deadline=1e-9))


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://", "http:// is not a URL that can be fetched: it names no host"),
        ("http://[::1/a.wav", "is not a URL that can be fetched: "),
        ("http://127.0.0.1:99999/a.wav", "is not a URL that can be fetched: Port out of range"),
        ("http://127.0.0.1:1/a.wav", "could not be fetched: .*refused; check the address and the network"),
        ("http://nowhere.invalid/a.wav", "nowhere.invalid/a.wav could not be fetched: .*; check the address"),
        ("http://a host/a.wav", "fetched: "),
    ],
)
def test_urls_that_lead_nowhere(url: str, text: str) -> None:
    with pytest.raises(AudioError, match=text):
        load(url)
