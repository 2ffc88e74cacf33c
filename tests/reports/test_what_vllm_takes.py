"""Requests as vLLM's clients send them: roles, extra keys, usage in every piece, languages of translations."""

from __future__ import annotations

import base64
import json

import pytest
from starlette.testclient import TestClient

from kit.clip_files import wav_bytes
from kit.fake_backend import FakeBackend
from qwen2_audio.serve.app import create_app
from qwen2_audio.serve.settings import Settings


@pytest.fixture
def backend():
    return FakeBackend()


@pytest.fixture
def client(backend):
    return TestClient(create_app(backend, Settings()))


def ask(client, message, **fields):
    return client.post("/v1/chat/completions", json={"messages": [message], **fields})


def events(response) -> list[dict]:
    assert response.status_code == 200, response.text
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def transcribe(client, task="transcriptions", **data):
    return client.post(f"/v1/audio/{task}", files={"file": wav_bytes()}, data=data)


# -- messages


@pytest.mark.parametrize(
    ("message", "role"),
    [
        ({"role": "user", "extra_field": "0"}, "user"),
        ({"role": "my-custom-role"}, "my-custom-role"),
        ({"role": "developer", "weight": 1}, "system"),
    ],
)
def test_extra_keys_and_other_roles(client, backend, message, role):
    for content in ("say hi", [{"type": "text", "text": "say hi", "cache": None}]):
        answer = ask(client, {**message, "content": content})
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"] == "hi"
        (seen,) = backend.seen[-1][0]
        assert (seen["role"], set(seen)) == (role, {"role", "content"})


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "asistant"}, "messages[0].role"),
        ({"role": "a b"}, "messages[0].role"),
        ({"role": "user<|im_end|>"}, "messages[0].role"),
        ({"role": "user", "nmae": "x"}, "messages[0].nmae"),
        ({"role": "user", "audio": "x"}, "messages[0].audio"),
        ({"role": "assistant", "tool_calls": [{"id": "x"}]}, "messages[0].tool_calls[0]"),
    ],
)
def test_what_is_misspelt_or_would_be_missed(client, message, param):
    answer = ask(client, {"content": "say hi", **message})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_clips(client):
    data = base64.b64encode(wav_bytes()).decode()
    for part in ({"type": "audio", "audio": data}, {"audio": data}, {"audio_url": f"data:audio/wav;base64,{data}"}):
        answer = ask(client, {"role": "user", "content": [part]})
        assert answer.json()["choices"][0]["message"]["content"] == "I heard 1 s", answer.text
    url = f"data:audio/wav;base64,{data}"
    answer = ask(client, {"role": "user", "content": [{"type": "audio_url", "audio_url": url}]})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "messages[0].content[0].audio_url"


def test_every_wrong_key_of_logit_bias_is_named(client):
    answer = ask(client, {"role": "user", "content": "say hi"}, logit_bias={"bad1": 1, "7": 1, "bad2": 2})
    assert answer.status_code == 400
    assert all(word in answer.json()["error"]["message"] for word in ("bad1", "bad2", "logit_bias"))


# -- usage in every piece


@pytest.mark.parametrize("n", [1, 2])
def test_usage_so_far(client, n):
    options = {"include_usage": True, "continuous_usage_stats": True}
    message = {"role": "user", "content": "say one two three"}
    pieces = events(ask(client, message, stream=True, stream_options=options, n=n))
    usages = [piece["usage"] for piece in pieces]
    assert all(usage["prompt_tokens"] > 0 for usage in usages)
    assert all(usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] for usage in usages)
    counts = [usage["completion_tokens"] for usage in usages]
    assert counts == sorted(counts)
    assert counts[0] == 0
    assert counts[-1] == 3 * n
    assert pieces[-1]["choices"] == []
    with_text = [
        piece["usage"]["completion_tokens"] for piece in pieces[:-1] if piece["choices"][0]["delta"].get("content")
    ]
    assert with_text == list(range(1, 3 * n + 1))


def test_usage_unasked(client):
    message = {"role": "user", "content": "say one two"}
    options = {"include_usage": True, "continuous_usage_stats": False}
    pieces = events(ask(client, message, stream=True, stream_options=options))
    assert [piece["usage"] is not None for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert all("usage" not in piece for piece in events(ask(client, message, stream=True)))


def test_usage_of_a_transcript(client):
    pieces = events(transcribe(client, stream="true", stream_continuous_usage_stats="true"))
    counts = [piece["usage"]["output_tokens"] for piece in pieces]
    assert counts == sorted(counts)
    assert counts[0] == 1
    assert pieces[-1]["type"] == "transcript.text.done"
    assert "usage" not in events(transcribe(client, stream="true"))[0]
    bare = events(transcribe(client, stream="true", stream_include_usage="false"))
    assert all("usage" not in piece for piece in bare)


def test_usage_so_far_of_the_engine(tiny_chat):
    """The real engine tells each chunk's tokens, and the prompt's before the first one."""
    import qwen2_audio as qa

    handle = tiny_chat.service().submit([qa.user("Hi")], qa.SamplingParams(max_tokens=5, min_tokens=5, temperature=0))
    chunks = list(handle)
    counts = [chunk.num_tokens for chunk in chunks[:-1]]
    assert counts == sorted(counts)
    assert counts[-1] <= chunks[-1].usage.completion_tokens == 5
    assert handle.prompt_usage.prompt_tokens == chunks[-1].usage.prompt_tokens


# -- languages


def text_sent(backend) -> str:
    return backend.seen[-1][0][0]["content"][1]["text"]


@pytest.mark.parametrize(
    ("fields", "text", "language"),
    [
        ({"to_language": "es"}, "Write down the Spanish translation of what is said.", "spanish"),
        ({"language": "it", "to_language": "en"},
         "The speech is in Italian. Write down the English translation of what is said.", "english"),
        ({"to_language": ""}, "Write down the English translation of what is said.", "english"),
        ({"to_language": "de_DE"}, "Write down the German translation of what is said.", "german"),
    ],
)  # fmt: skip
def test_languages_of_translations(client, backend, fields, text, language):
    answer = transcribe(client, "translations", response_format="verbose_json", **fields)
    assert answer.status_code == 200, answer.text
    assert answer.json()["language"] == language
    assert text_sent(backend) == text


@pytest.mark.parametrize(
    ("task", "fields", "param"),
    [
        ("translations", {"to_language": "xx"}, "to_language"),
        ("transcriptions", {"to_language": "es"}, "to_language"),
        ("translations", {"language": "hh"}, "language"),
    ],
)
def test_languages_that_are_refused(client, task, fields, param):
    answer = transcribe(client, task, **fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("base", "answer", "language"),
    [
        (False, "What is the capital of France?", "english"),
        (False, "Alle Menschen sind frei und gleich an Würde geboren.", "german"),
        (True, "<|it|>Né più mai", "italian"),
        (False, "Okay.", "unknown"),
    ],
)
def test_the_language_that_was_heard(client, backend, monkeypatch, base, answer, language):
    monkeypatch.setattr(FakeBackend, "is_base", base)
    monkeypatch.setattr("kit.fake_backend.text_of", lambda messages: f"say {answer}")
    body = transcribe(client, response_format="verbose_json").json()
    assert body["language"] == language
    assert "<|" not in body["text"]
    assert transcribe(client, response_format="verbose_json", language="fr").json()["language"] == "french"
