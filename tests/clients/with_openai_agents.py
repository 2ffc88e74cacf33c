"""OpenAI's agents, on chat completions: clips in, structured answers, tools."""

from __future__ import annotations

import asyncio
from typing import Literal

import openai
import pytest
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    StopAtTools,
    function_tool,
    set_tracing_disabled,
)


@pytest.fixture
def model(url):
    set_tracing_disabled(True)
    return OpenAIChatCompletionsModel("nano", openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0))


@pytest.fixture
def question(heard):
    return [{"role": "user", "content": [heard, {"type": "input_text", "text": "What is that sound?"}]}]


@function_tool
def set_light(room: Literal["kitchen", "bath"], on: bool) -> str:
    """Turns the light in a room on or off."""
    return f"The light in {room} is {'on' if on else 'off'}."


def test_an_answer(model, question):
    agent = Agent("listener", model=model, model_settings=ModelSettings(temperature=0, max_tokens=300))
    result = Runner.run_sync(agent, question)
    assert "dog" in result.final_output.lower()


def test_a_model_from_a_clip(model, question, sound):
    agent = Agent(
        "listener", model=model, model_settings=ModelSettings(temperature=0, max_tokens=300), output_type=sound
    )
    assert isinstance(Runner.run_sync(agent, question).final_output, sound)


def test_a_stream(model, question):
    async def ask():
        agent = Agent(
            "listener", model=model, model_settings=ModelSettings(temperature=0, max_tokens=300, include_usage=True)
        )
        result = Runner.run_streamed(agent, question)
        kinds = [event.type async for event in result.stream_events()]
        return kinds, result

    kinds, result = asyncio.run(ask())
    assert "raw_response_event" in kinds and "dog" in result.final_output.lower()
    assert result.context_wrapper.usage.input_tokens > 0


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("by", [OpenAIChatCompletionsModel, OpenAIResponsesModel])
def test_a_tool(url, question, by, streamed):
    set_tracing_disabled(True)
    model = by("nano", openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0))
    settings = ModelSettings(temperature=0, max_tokens=300, tool_choice="required", parallel_tool_calls=False)
    agent = Agent(
        "switch", model=model, model_settings=settings, tools=[set_light],
        tool_use_behavior=StopAtTools(stop_at_tool_names=["set_light"]),
    )  # fmt: skip

    async def ask():
        if not streamed:
            return await Runner.run(agent, question)
        result = Runner.run_streamed(agent, question)
        async for _ in result.stream_events():
            pass
        return result

    assert asyncio.run(ask()).final_output.startswith("The light in ")


def test_two_turns_by_responses(url, question, sound):
    set_tracing_disabled(True)
    model = OpenAIResponsesModel("nano", openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0))
    agent = Agent("listener", model=model, model_settings=ModelSettings(temperature=0, max_tokens=300))
    first = Runner.run_sync(agent, question)
    assert "dog" in first.final_output.lower()
    turns = [*first.to_input_list(), {"role": "user", "content": "Are you sure?"}]
    assert isinstance(Runner.run_sync(agent.clone(output_type=sound), turns).final_output, sound)
