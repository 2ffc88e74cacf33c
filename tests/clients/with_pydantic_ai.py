"""pydantic-ai: agents whose answers are models, by tools and by a schema, and whose tools are called."""

from __future__ import annotations

import asyncio

import pytest
from pydantic_ai import Agent, BinaryContent, NativeOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

SETTINGS = {"temperature": 0, "max_tokens": 300, "timeout": 60}


@pytest.fixture
def model(url):
    return OpenAIChatModel("nano", provider=OpenAIProvider(base_url=url, api_key="none"))


@pytest.fixture
def question(dog):
    return ["What is that sound?", BinaryContent(data=dog, media_type="audio/wav")]


def test_an_answer(model, question):
    result = Agent(model, model_settings=SETTINGS).run_sync(question)
    assert "dog" in result.output.lower()
    assert result.usage.input_audio_tokens > 0


def test_an_answer_streamed(model, question):
    async def ask():
        async with Agent(model, model_settings=SETTINGS).run_stream(question) as stream:
            return [text async for text in stream.stream_text(delta=True)], stream.usage

    texts, usage = asyncio.run(ask())
    assert "dog" in "".join(texts).lower() and usage.input_audio_tokens > 0


@pytest.mark.parametrize("kind", [NativeOutput, ToolOutput])
def test_a_model_from_a_clip(model, question, sound, kind):
    agent = Agent(model, output_type=kind(sound), model_settings=SETTINGS, retries=0)
    assert isinstance(agent.run_sync(question).output, sound)
