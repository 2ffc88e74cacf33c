"""Bodies of JSON: a large one is parsed and converted in a thread, whatever its path."""

from __future__ import annotations

import asyncio

import pytest
from starlette.routing import Route

from kit.fake_backend import FakeBackend
from qwen2_audio.errors import ConfigError
from qwen2_audio.serve import bodies, convert
from qwen2_audio.serve.app import create_app
from qwen2_audio.serve.bodies import FORM

TOOL = {"type": "function", "function": {"name": "stop"}}
LARGE = "x" * bodies.PARSE_IN_THREAD
ROUTES = [route for route in create_app(FakeBackend()).routes if isinstance(route, Route)]
POSTS = sorted(route.path for route in ROUTES if "POST" in (route.methods or ()))
TURNS = [{"role": "user", "content": LARGE}]
QUESTION = {"type": "predicate", "instructions": "Is it loud?"}


def on_the_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@pytest.fixture
def parsed(monkeypatch):
    """Whether each body was parsed on the event loop."""
    seen: list[bool] = []
    parse = bodies.parse_json
    monkeypatch.setattr(bodies, "parse_json", lambda body: seen.append(on_the_loop()) or parse(body))
    return seen


@pytest.mark.parametrize("path", POSTS)
def test_a_large_body_is_parsed_in_a_thread(client, parsed, path):
    answer = client.post(path, json={"unknown": LARGE})
    if answer.status_code == 415:
        assert FORM in answer.json()["error"]["message"]
    else:
        assert answer.status_code == 400 and parsed == [False]


def test_a_small_body_is_not(client, parsed):
    assert client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "say hi"}]}).is_success
    assert parsed == [True]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": TURNS}),
        ("/v1/embeddings", {"messages": TURNS}),
        ("/v1/responses", {"input": TURNS}),
        ("/v1/decisions", {"input": TURNS, "questions": [QUESTION]}),
        ("/v1/systemone", {"audio": [LARGE], "questions": {"loud": {"type": "noul", "instructions": "?"}}}),
        ("/tokenize", {"messages": TURNS}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "say hi"}], "tools": [TOOL]}),
    ],
)
def test_its_messages_are_converted_there_too(client, monkeypatch, path, body):
    seen = []

    def refuse(*_, **__):
        seen.append(on_the_loop())
        raise ConfigError("It was converted.")

    monkeypatch.setattr(convert, "_text", refuse)
    client.post(path, json=body)
    assert seen == [False]
