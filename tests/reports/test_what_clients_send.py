"""Fields and bodies as real clients send them: names, nulls, spellings of languages, compression, byte order marks."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib

import pytest
from starlette.testclient import TestClient

from kit.clip_files import wav_bytes
from kit.fake_backend import FakeBackend
from qwen2_audio.serve.app import create_app
from qwen2_audio.serve.settings import Settings

CHAT = {"messages": [{"role": "user", "content": "say hi"}]}
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def backend():
    return FakeBackend()


@pytest.fixture
def client(backend):
    return TestClient(create_app(backend, Settings(body_bytes=100_000)))


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "user", "name": "Ann", "content": "say hi"}]},
        {
            "messages": [
                {"role": "user", "content": "say yes"},
                {"role": "assistant", "content": None, "refusal": None, "tool_calls": []},
                {"role": "user", "content": "say hi"},
            ]
        },
        {**CHAT, "stream": True, "stream_options": {"include_usage": None}},
        {**CHAT, "stream": True, "stream_options": {"include_usage": True, "include_obfuscation": None}},
        {**CHAT, "response_format": {"type": "text", "json_schema": None}},
        {**CHAT, "metadata": {"session": None}},
        {
            **CHAT,
            "prompt_cache_key": "a",
            "prompt_cache_options": {"mode": "implicit"},
            "prompt_cache_retention": "24h",
        },
    ],
)
def test_fields_of_chat(client, fields):
    answer = client.post("/v1/chat/completions", json=fields)
    assert answer.status_code == 200, answer.text
    assert "hi" in answer.text


def test_hints_for_a_cache_and_no_reasoning_are_taken_by_responses_too(client):
    hints = {"prompt_cache_key": "a", "prompt_cache_options": {}, "prompt_cache_retention": "in_memory"}
    answer = client.post("/v1/responses", json={"input": "say hi", "reasoning": {"effort": "none"}, **hints})
    assert answer.status_code == 200 and "hi" in answer.text
    refused = client.post("/v1/responses", json={"input": "say hi", "reasoning": {"effort": "low"}})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "reasoning")


def test_a_name_that_is_no_string_and_a_user_who_says_nothing(client):
    for message, param in (
        ({"role": "user", "name": 3, "content": "a"}, "messages[0].name"),
        ({"role": "user", "content": None}, "messages[0].content"),
    ):
        answer = client.post("/v1/chat/completions", json={"messages": [message]})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("language", "name"),
    [
        ("", "unknown"), ("auto", "unknown"), ("Auto", "unknown"), ("en_US", "english"), ("en-GB", "english"),
        ("EN", "english"), ("english", "english"), ("English ", "english"), ("zh-Hans-CN", "chinese"),
        ("mandarin", "chinese"), ("Cantonese", "cantonese"),
    ],
)  # fmt: skip
def test_languages(client, language, name):
    fields = {"language": language, "response_format": "verbose_json"}
    answer = client.post("/v1/audio/transcriptions", files={"file": wav_bytes()}, data=fields)
    assert answer.status_code == 200, answer.text
    assert answer.json()["language"] == name


@pytest.mark.parametrize("task", ["transcriptions", "translations"])
def test_empty_fields_of_a_form_ask_for_nothing(client, task):
    names = ("model", "language", "prompt", "response_format", "temperature", "stream", "seed", "chunking_strategy")
    answer = client.post(f"/v1/audio/{task}", files={"file": wav_bytes()}, data=dict.fromkeys(names, ""))
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("GZIP", gzip.compress), ("deflate", zlib.compress)]
)
def test_compressed_bodies(client, encoding, compress):
    headers = {**JSON, "Content-Encoding": encoding}
    answer = client.post("/v1/chat/completions", content=compress(json.dumps(CHAT).encode()), headers=headers)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("encoding", "body", "status", "code"),
    [
        ("gzip", gzip.compress(b" " * 50_000_000, mtime=0), 413, "body_too_large"),
        ("gzip", b"plain", 400, "invalid_encoding"),
        ("br", b"plain", 415, "unsupported_media_type"),
    ],
)
def test_compressed_bodies_that_are_refused(client, encoding, body, status, code):
    headers = {**JSON, "Content-Encoding": encoding}
    answer = client.post("/v1/chat/completions", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_a_byte_order_mark(client):
    body = codecs.BOM_UTF8 + json.dumps(CHAT).encode()
    assert client.post("/v1/chat/completions", content=body, headers=JSON).status_code == 200
