"""An application with the fake backend, called without sockets."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from kit.clip_files import wav_bytes
from kit.fake_backend import FakeBackend
from qwen2_audio.serve.app import create_app
from qwen2_audio.serve.settings import Settings


@pytest.fixture
def wav() -> bytes:
    return wav_bytes()


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def client_of(backend) -> Callable[..., TestClient]:
    """client_of(Settings(...)) -> a client whose requests go straight to the application."""

    def make(settings: Settings | None = None, url: str = "http://localhost:8000") -> TestClient:
        return TestClient(create_app(backend, settings), base_url=url, raise_server_exceptions=False)

    return make


@pytest.fixture
def client(client_of) -> TestClient:
    return client_of()
