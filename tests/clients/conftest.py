"""A server's address, and clips as clients send them. These tests run in environments that lack the package."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict

CLOSED = ConfigDict(extra="forbid")  # nano would go on with properties that no schema names


class Sound(BaseModel):
    """What is heard."""

    model_config = CLOSED
    kind: Literal["dog", "cat", "rain"]
    loud: bool


class Light(BaseModel):
    """Turns the light in a room on or off."""

    model_config = CLOSED
    room: Literal["kitchen", "bath"]
    on: bool


@pytest.fixture(scope="session")
def url() -> str:
    """The server's, with the version of its API."""
    return os.environ["CLIENTS_URL"] + "/v1"


@pytest.fixture(scope="session")
def dog() -> bytes:
    """A WAV file of a dog that barks."""
    return (Path(os.environ["CLIENTS_CLIPS"]) / "dog.wav").read_bytes()


@pytest.fixture(scope="session")
def heard(dog: bytes) -> dict:
    """The dog as a part of a message."""
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(dog).decode(), "format": "wav"}}


@pytest.fixture(scope="session")
def asked(heard: dict) -> list[dict]:
    """One turn: the dog, and what it is."""
    return [{"role": "user", "content": [heard, {"type": "text", "text": "What is that sound?"}]}]


@pytest.fixture(scope="session")
def sound() -> type[BaseModel]:
    return Sound


@pytest.fixture(scope="session")
def light() -> type[BaseModel]:
    return Light
