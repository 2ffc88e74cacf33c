"""litellm, as of a server that speaks OpenAI's API."""

from __future__ import annotations

import json

import litellm
import pytest

litellm.suppress_debug_info = True


@pytest.fixture
def options(url):
    return {
        "model": "openai/nano", "api_base": url, "api_key": "none", "temperature": 0, "max_retries": 0, "timeout": 60,
    }  # fmt: skip


def test_an_answer(options, asked):
    answer = litellm.completion(**options, messages=asked)
    assert "dog" in answer.choices[0].message.content.lower()
    assert answer.usage.prompt_tokens_details.audio_tokens > 0


def test_a_stream_with_usage(options, asked):
    chunks = list(litellm.completion(**options, messages=asked, stream=True, stream_options={"include_usage": True}))
    assert "dog" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices).lower()
    assert chunks[-1].usage.prompt_tokens > 0


def test_a_schema(options, asked, sound):
    answer = litellm.completion(**options, messages=asked, response_format=sound)
    sound.model_validate_json(answer.choices[0].message.content)


@pytest.mark.parametrize("streamed", [False, True])
def test_tools(options, asked, light, streamed):
    function = {"name": "set_light", "description": "Turns the light on.", "parameters": light.model_json_schema()}
    answer = litellm.completion(
        **options, messages=asked, tools=[{"type": "function", "function": function}], tool_choice="required",
        max_tokens=300, parallel_tool_calls=False, stream=streamed,
    )  # fmt: skip
    if streamed:
        answer = litellm.stream_chunk_builder(list(answer), messages=asked)
    calls = answer.choices[0].message.tool_calls
    assert calls and {call.function.name for call in calls} == {"set_light"}
    for call in calls:
        light.model_validate(json.loads(call.function.arguments))


def test_a_transcript(options, dog):
    answer = litellm.transcription(**options, file=("dog.wav", dog))
    assert isinstance(answer.text, str)


def test_vectors(options):
    options.pop("temperature")
    assert len(litellm.embedding(**options, input=["a dog barks"]).data[0]["embedding"]) > 0
