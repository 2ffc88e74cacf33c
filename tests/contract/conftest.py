"""A live server around the fake backend, and OpenAI's own client."""

from __future__ import annotations

import httpx2 as httpx
import pytest

from kit.clip_files import wav_bytes
from kit.fake_backend import FakeBackend
from kit.live_server import live
from qwen2_audio.serve.settings import FetchPolicy, Settings

openai = pytest.importorskip("openai")
KEY = "key-of-the-tests"


@pytest.fixture(scope="session")
def backend():
    return FakeBackend()


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """What file: URLs may name."""
    folder = tmp_path_factory.mktemp("allowed")
    (folder / "dog.wav").write_bytes(wav_bytes())
    return folder


@pytest.fixture(scope="session")
def server(backend, folder):
    fetch = FetchPolicy(private_hosts=("127.0.0.1",), folder=folder, seconds=5)
    settings = Settings(api_keys=("another", KEY), fetch=fetch, grace=2, deadline=30, ping=0.3)
    with live(backend, settings) as running:
        yield running


@pytest.fixture(scope="session")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0, timeout=20) as client:
        yield client


@pytest.fixture
def wav() -> bytes:
    return wav_bytes()


@pytest.fixture
def serving(backend):
    """serving(field=value, ...) -> (client, Live) of a server with these settings."""
    running = []

    def start(**fields):
        context = live(backend, Settings(**{"grace": 1, **fields}))
        server = context.__enter__()
        client = httpx.Client(base_url=server.url, timeout=20)
        running.append((context, client))
        return client, server

    yield start
    for context, client in running:
        client.close()
        context.__exit__(None, None, None)
