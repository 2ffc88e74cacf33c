"""The field `long` of chat completions."""

from __future__ import annotations

import base64
import json
import time

import openai
import pytest

from kit.clip_files import wav_bytes
from kit.fake_backend import FakeBackend
from kit.live_server import live
from qwen2_audio.longform import transcribe, vad
from qwen2_audio.longform.questions import parts
from qwen2_audio.serve.settings import Settings

NINE_MINUTES = base64.b64encode(wav_bytes(540.0)).decode()
LONG = base64.b64encode(wav_bytes(65.0)).decode()


@pytest.fixture(autouse=True)
def _by_energy(monkeypatch):
    monkeypatch.setattr(vad, "speech_detector", lambda: None)


def ask(client, *clips, long="parts", text="say hello there", more=None, **options):
    content = [{"type": "input_audio", "input_audio": {"data": clip, "format": "wav"}} for clip in clips]
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]
    return client.chat.completions.create(
        model="fake", messages=messages, extra_body={"long": long, **(more or {})}, **options
    )


def test_parts(client):
    answer = ask(client, LONG)
    assert answer.choices[0].finish_reason == "stop"
    assert [part["start"] for part in answer.parts] == sorted(part["start"] for part in answer.parts)
    assert len(answer.parts) == 3 and answer.parts[-1]["end"] == 65.0 and answer.parts[0]["text"].startswith("hello")
    (heard,) = answer.usage.heard
    assert (heard["seconds"], heard["long"], heard["parts"]) == (65.0, "parts", 3)
    assert "each alone" in heard["notes"][0]


def test_a_stream_sends_parts_as_they_come(client):
    chunks = list(ask(client, LONG, stream=True, stream_options={"include_usage": True}))
    parts = [chunk.part for chunk in chunks if getattr(chunk, "part", None)]
    assert len(parts) == 3 and parts[-1]["end"] == 65.0
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == ask(client, LONG).choices[0].message.content
    assert chunks[-1].usage.heard[0]["long"] == "parts"
    first_text = next(n for n, chunk in enumerate(chunks) if chunk.choices and chunk.choices[0].delta.content)
    assert all(getattr(chunk, "part", None) is None for chunk in chunks[first_text:])


def test_native_and_transcript(client):
    native = ask(client, LONG, long="native")
    assert native.usage.heard[0]["long"] == "native" and not hasattr(native, "parts")
    assert ask(client, LONG, long="transcript").usage.heard[0]["long"] == "transcript"


def test_a_short_clip_is_answered_as_ever(client, wav):
    short = base64.b64encode(wav).decode()
    answer = ask(client, short)
    assert answer.choices[0].message.content.startswith("hello") and not hasattr(answer, "parts")


def test_the_default_refuses_with_the_sentence_that_says_how(client):
    with pytest.raises(
        openai.BadRequestError, match=r'lasts 65 s.*"long": "parts" hears it window by window'
    ) as refused:
        ask(client, LONG, long="refuse")
    assert refused.value.param == "messages[0].content[0]" and "m.chat" not in str(refused.value)


@pytest.mark.parametrize(
    ("clips", "long", "param", "sentence"),
    [
        ([LONG], "part", "long", "long is 'part'; expected"),
        ([LONG, LONG], "parts", "messages[0].content[1]", "Clip 1 and Clip 2 both last longer"),
        ([base64.b64encode(b"nothing" * 9).decode()], "parts", "messages[0].content[0]", "Clip 1"),
        ([base64.b64encode(wav_bytes(140.0)).decode()], "native", "messages[0].content[0]", "more than the 4 windows"),
    ],
    ids=["value", "two", "no sound", "too long"],
)
def test_what_cannot_be_answered_is_400_with_the_field(client, clips, long, param, sentence):
    with pytest.raises(openai.BadRequestError, match=sentence) as refused:
        ask(client, *clips, long=long)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("field", "value"),
    [("continue_final_message", True), ("add_generation_prompt", False)],
    ids=lambda value: str(value),
)
def test_fields_that_shape_one_prompt_are_refused(client, field, value):
    with pytest.raises(openai.BadRequestError, match=f"{field} shapes one prompt") as refused:
        ask(client, LONG, more={field: value})
    assert refused.value.param == field


def test_a_failure_inside_a_stream_is_an_event(client, server):
    with pytest.raises(openai.APIError, match=r"its log says why"):
        list(ask(client, LONG, text="fault now", stream=True))


def test_events_are_chat_chunks(server):
    import httpx2 as httpx

    content = [{"type": "input_audio", "input_audio": {"data": LONG}}, {"type": "text", "text": "say hi"}]
    body = {"messages": [{"role": "user", "content": content}], "stream": True, "long": "parts"}
    headers = {"Authorization": "Bearer key-of-the-tests"}
    with httpx.Client(base_url=server.url, timeout=20) as http:
        text = http.post("/v1/chat/completions", json=body, headers=headers).text
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    assert all(len(event["choices"]) == 1 and event["object"] == "chat.completion.chunk" for event in events)


@pytest.mark.parametrize("long", ["parts", "transcript"])
def test_a_stop_ends_a_question_with_its_sentence(monkeypatch, long):
    """It asks about no further window, and does not try for as long as a full queue would be waited for."""
    for module in (parts, transcribe):
        monkeypatch.setattr(module, "MAX_PENDING", 2)
    monkeypatch.setattr(transcribe, "speech_detector", lambda: None)
    monkeypatch.setattr("kit.fake_backend.text_of", lambda messages: "say hello there")
    with (
        live(FakeBackend(delay=0.1), Settings(grace=2)) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=20) as client,
    ):
        chunks = iter(ask(client, NINE_MINUTES, long=long, stream=True))
        while not getattr(next(chunks), "part", None):
            pass
        began = time.monotonic()
        server.server.should_exit = True
        with pytest.raises(openai.APIError, match="shutting down"):
            list(chunks)
        assert time.monotonic() - began < 5
