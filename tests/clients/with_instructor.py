"""instructor: pydantic models from answers, by tools and by a schema."""

from __future__ import annotations

import base64

import instructor
import openai
import pytest
from instructor.processing.multimodal import Audio

MODES = [instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA]


@pytest.fixture
def client(url):
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
        yield client


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_a_model_from_a_clip(client, asked, sound, mode):
    patched = instructor.from_openai(client, mode=mode)
    made, answer = patched.chat.completions.create_with_completion(
        model="nano", temperature=0, max_tokens=300, messages=asked, response_model=sound, max_retries=0
    )
    assert isinstance(made, sound)
    assert answer.usage.prompt_tokens_details.audio_tokens > 0


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_partial_models_from_a_stream(client, asked, sound, mode):
    patched = instructor.from_openai(client, mode=mode)
    *_, last = patched.chat.completions.create_partial(
        model="nano", temperature=0, max_tokens=300, messages=asked, response_model=sound, max_retries=0
    )
    assert last.kind is not None and last.loud is not None


def test_a_clip_in_its_own_form(client, dog, sound):
    patched = instructor.from_openai(client, mode=instructor.Mode.TOOLS)
    clip = Audio(source="dog.wav", data=base64.b64encode(dog).decode(), media_type="audio/wav")
    messages = [{"role": "user", "content": ["What is that sound?", clip]}]
    made = patched.chat.completions.create(
        model="nano", temperature=0, max_tokens=300, messages=messages, response_model=sound, max_retries=0
    )
    assert isinstance(made, sound)
