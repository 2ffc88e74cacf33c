"""An error about a clip says which one and sets `param`; it names the limit that was hit, and no Python class."""

from __future__ import annotations

import base64
import io
import re
import wave
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

import qwen2_audio as qa
from qwen2_audio.errors import AudioError
from qwen2_audio.inputs.clip import load_clip
from qwen2_audio.serve.app import create_app
from qwen2_audio.serve.settings import Settings

PYTHON = re.compile(
    r"\b(dict|NoneType|int|str|float|bool|tuple|None|True|False|numpy|instance|Qwen2\w+|"
    r"pass them|raise max_\w+|raise the deadline)\b"
)


def wav(seconds: float, rate: int = 16_000, channels: int = 1) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(bytes(2 * channels * round(seconds * rate)))
    return file.getvalue()


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    chat = qa.load()  # its service ends with it
    with TestClient(create_app(chat.service(), Settings()), base_url="http://localhost") as client:
        yield client


def error_of(client: TestClient, content: Any, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": content}]
    answer = client.post("/v1/chat/completions", json={"messages": messages, "max_tokens": 1, **fields})
    assert 400 <= answer.status_code < 500, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert not PYTHON.search(error["message"]), error
    return error


def part(data: bytes) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": "wav"}}


BAD = {
    "noise": (bytes(range(256)) * 40, "could not be decoded"),
    "empty": (wav(0), "holds no samples"),
    "short": (wav(0.01), "too short"),
    "long": (wav(31), "lasts 31 s, and 30 s are heard"),
    "hour": (wav(3600, 4000)[:20_000_000], r"lasts more than 600 s, and 30 s are heard"),
    "channels": (wav(1, channels=9), "has 9 channels; expected 1 to 8"),
    "rate": (wav(1, rate=2000), "sampling rate of 2,000 Hz; expected 4,000"),
    "half": (wav(1)[:40], "could not be decoded|holds no samples"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("bad", BAD)
def test_chat_says_which_clip(client: TestClient, bad: str, stream: bool) -> None:
    data, sentence = BAD[bad]
    content = [part(wav(1)), {"type": "text", "text": "What is it?"}, part(data)]
    error = error_of(client, content, stream=stream)
    assert (error["param"], error["code"]) == ("messages[0].content[2]", "invalid_audio")
    assert re.match(rf"Clip 2 .*({sentence})", error["message"]), error


@pytest.mark.parametrize("bad", sorted(BAD.keys() - {"long", "hour"}))  # which are transcribed in parts
def test_a_form_names_its_file(client: TestClient, bad: str) -> None:
    answer = client.post("/v1/audio/transcriptions", files={"file": ("a.wav", BAD[bad][0])})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "file")
    assert not PYTHON.search(error["message"]), error


@pytest.mark.parametrize(
    ("content", "fields", "param"),
    [
        ([5], {}, "messages[0].content[0]"),
        ([None], {}, "messages[0].content[0]"),
        ([{"type": "text", "text": 5}], {}, "messages[0].content[0].text"),
        ([{"type": "input_audio", "input_audio": "x"}], {}, "messages[0].content[0].input_audio"),
        ([{"type": "input_audio", "input_audio": {"data": []}}], {}, "messages[0].content[0].input_audio.data"),
        ("x", {"temperature": [True]}, "temperature"),
        ("x", {"stream": True, "stream_options": 3}, "stream_options"),
        ("x", {"logit_bias": [None]}, "logit_bias"),
        ("x", {"stop": {"a": None}}, "stop"),
    ],
)
def test_types_are_called_as_json_calls_them(client: TestClient, content: Any, fields: Any, param: str) -> None:
    assert error_of(client, content, **fields)["param"] == param


def test_a_body_that_is_no_object(client: TestClient) -> None:
    message = client.post("/v1/chat/completions", json=[1]).json()["error"]["message"]
    assert message.startswith("The body is a list; expected an object")


def test_in_python_the_clip_is_named_too_with_what_callers_can_do() -> None:
    with pytest.raises(AudioError, match=r"^Clip 2: The array of shape \(2, 2\)") as refused:
        load_clip(np.zeros((2, 2), np.float32), 2)
    assert refused.value.clip == 2
    with pytest.raises(AudioError, match="pass them as a list") as refused:
        load_clip(wav(31), 3)
    assert refused.value.sentence.endswith("Split it into clips of at most 30 s.")
