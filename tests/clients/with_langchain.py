"""LangChain's ChatOpenAI: structured answers in each of its methods, tools, and streams with usage."""

from __future__ import annotations

from typing import Literal

import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


@pytest.fixture
def model(url):
    return ChatOpenAI(
        model="nano", base_url=url, api_key="none", temperature=0, max_tokens=300, max_retries=0, timeout=60
    )


@pytest.fixture
def turns(asked):
    return [HumanMessage(content=asked[0]["content"])]


@tool
def set_light(room: Literal["kitchen", "bath"], on: bool) -> str:
    """Turns the light in a room on or off."""
    return f"The light in the {room} is {'on' if on else 'off'}."


def test_an_answer(model, turns):
    answer = model.invoke(turns)
    assert "dog" in answer.text.lower()
    assert answer.usage_metadata["input_token_details"]["audio"] > 0


def test_a_clip_in_langchains_own_form(model, heard):
    part = {"type": "audio", "base64": heard["input_audio"]["data"], "mime_type": "audio/wav"}
    turns = [HumanMessage(content=[part, {"type": "text", "text": "What is that sound?"}])]
    assert "dog" in model.invoke(turns).text.lower()


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_with_structured_output(model, turns, sound, method):
    held = model.with_structured_output(sound, method=method, include_raw=True).invoke(turns)
    assert held["raw"].usage_metadata["input_token_details"]["audio"] > 0
    if method == "json_mode":  # any object: its keys are the prompt's affair
        assert held["raw"].text.startswith("{")
    else:
        assert held["parsing_error"] is None and isinstance(held["parsed"], sound)


def test_a_stream_with_structured_output(model, turns, sound):
    *_, last = model.with_structured_output(sound).stream(turns)
    assert isinstance(last, sound)


def test_a_stream_with_usage(model, turns):
    chunks = list(model.stream(turns, stream_usage=True))
    whole = sum(chunks[1:], chunks[0])
    assert "dog" in whole.text.lower()
    assert whole.usage_metadata["input_token_details"]["audio"] > 0


def test_tools(model, turns):
    bound = model.bind_tools([set_light], strict=True, tool_choice="required", parallel_tool_calls=False)
    answer = bound.invoke(turns)
    (call,) = answer.tool_calls
    assert call["name"] == "set_light" and isinstance(call["args"]["on"], bool)
    back = set_light.invoke(call)
    assert isinstance(back, ToolMessage)
    assert model.bind_tools([set_light]).invoke([*turns, answer, back]).response_metadata["finish_reason"]


def test_tools_streamed(model, turns):
    bound = model.bind_tools([set_light], strict=True, tool_choice="set_light")
    chunks = list(bound.stream(turns))
    (call,) = sum(chunks[1:], chunks[0]).tool_calls
    assert call["name"] == "set_light" and isinstance(call["args"]["room"], str) and call["id"]


def test_responses(url, turns, sound):
    model = ChatOpenAI(
        model="nano", base_url=url, api_key="none", temperature=0, max_tokens=300, use_responses_api=True
    )
    assert isinstance(model.with_structured_output(sound, method="json_schema").invoke(turns), sound)
