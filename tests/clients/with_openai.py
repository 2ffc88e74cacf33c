"""OpenAI's own client: the newest, and one of the 1.x that many programs still hold to."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest

TURN = {"model": "nano", "temperature": 0}
ONE_CALL = {**TURN, "max_completion_tokens": 300, "parallel_tool_calls": False}  # nano has more to say than ends


@pytest.fixture
def client(url):
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
def responses_input(heard):
    return [{"role": "user", "content": [heard, {"type": "input_text", "text": "What is that sound?"}]}]


def test_an_answer(client, asked):
    answer = client.chat.completions.create(**TURN, messages=asked)
    assert "dog" in answer.choices[0].message.content.lower()
    assert answer.usage.prompt_tokens_details.audio_tokens > 0


def test_a_stream_with_usage(client, asked):
    stream = client.chat.completions.create(**TURN, messages=asked, stream=True, stream_options={"include_usage": True})
    *chunks, last = list(stream)
    assert "dog" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks).lower()
    assert not last.choices and last.usage.prompt_tokens_details.audio_tokens > 0


def test_an_answer_parsed(client, asked, sound):
    answer = client.chat.completions.parse(**TURN, messages=asked, response_format=sound)
    assert isinstance(answer.choices[0].message.parsed, sound)
    assert answer.usage.prompt_tokens_details.audio_tokens > 0


def test_a_stream_parsed(client, asked, sound):
    with client.chat.completions.stream(**TURN, messages=asked, response_format=sound) as stream:
        kinds = {event.type for event in stream}
        answer = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert isinstance(answer.choices[0].message.parsed, sound)


def test_a_tool_parsed_and_answered(client, asked, light):
    tools = [openai.pydantic_function_tool(light, name="set_light")]
    answer = client.chat.completions.parse(**ONE_CALL, messages=asked, tools=tools, tool_choice="required")
    message = answer.choices[0].message
    assert message.tool_calls
    turns = [*asked, message.model_dump(exclude_none=True)]
    for call in message.tool_calls:
        assert isinstance(call.function.parsed_arguments, light)
        turns.append({"role": "tool", "tool_call_id": call.id, "content": "done"})
    assert client.chat.completions.create(**TURN, messages=turns, tools=tools).choices[0].message.content


def test_tools_streamed(client, asked, light):
    tools = [openai.pydantic_function_tool(light, name="set_light")]
    with client.chat.completions.stream(**ONE_CALL, messages=asked, tools=tools, tool_choice="required") as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        choice = stream.get_final_completion().choices[0]
    assert done and all(isinstance(event.parsed_arguments, light) for event in done)
    assert [call.function.parsed_arguments for call in choice.message.tool_calls] == [
        event.parsed_arguments for event in done
    ]
    assert choice.finish_reason == "tool_calls"


def test_tools_streamed_in_chunks(client, asked, light):
    tools = [openai.pydantic_function_tool(light, name="set_light")]
    named = {"type": "function", "function": {"name": "set_light"}}
    stream = client.chat.completions.create(**ONE_CALL, messages=asked, tools=tools, tool_choice=named, stream=True)
    deltas = [call for chunk in stream for call in chunk.choices[0].delta.tool_calls or ()]
    first, *others = deltas
    assert first.id and first.type == "function" and first.function.name == "set_light"
    assert all(delta.id is None and delta.function.name is None for delta in others)
    light.model_validate(json.loads("".join(delta.function.arguments for delta in deltas)))


def test_an_asynchronous_client(url, asked, sound):
    async def ask():
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
            return await client.chat.completions.parse(**TURN, messages=asked, response_format=sound)

    assert isinstance(asyncio.run(ask()).choices[0].message.parsed, sound)


def test_a_response_parsed_and_gone_on_with(client, responses_input, sound):
    response = client.responses.parse(**TURN, input=responses_input, text_format=sound)
    assert isinstance(response.output_parsed, sound)
    assert response.usage.input_tokens > 0 and response.usage.output_tokens > 0
    more = client.responses.create(**TURN, input="Are you sure?", previous_response_id=response.id)
    assert more.output_text and more.previous_response_id == response.id


def test_a_response_streamed_and_parsed(client, responses_input, sound):
    with client.responses.stream(**TURN, input=responses_input, text_format=sound) as stream:
        kinds = [event.type for event in stream]
        response = stream.get_final_response()
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    assert isinstance(response.output_parsed, sound)


def test_a_tool_called_by_a_response_and_its_result_sent_back(client, responses_input, light):
    tool = openai.pydantic_function_tool(light, name="set_light")["function"]
    tools = [{"type": "function", **tool}]
    settings = {**TURN, "max_output_tokens": 300, "parallel_tool_calls": False, "tools": tools}
    response = client.responses.create(**settings, input=responses_input, tool_choice="required")
    calls = [item for item in response.output if item.type == "function_call"]
    assert calls and all(call.name == "set_light" and light.model_validate_json(call.arguments) for call in calls)
    results = [{"type": "function_call_output", "call_id": call.call_id, "output": "done"} for call in calls]
    kept = client.responses.create(**settings, input=results, previous_response_id=response.id, tool_choice="none")
    sent = client.responses.create(**settings, input=[*responses_input, *response.output, *results], tool_choice="none")
    assert kept.output_text == sent.output_text != ""


def test_a_tool_called_by_a_streamed_response(client, responses_input, light):
    tool = openai.pydantic_function_tool(light, name="set_light")["function"]
    with client.responses.stream(
        **TURN, max_output_tokens=300, parallel_tool_calls=False, input=responses_input,
        tools=[{"type": "function", **tool}], tool_choice={"type": "function", "name": "set_light"},
    ) as stream:  # fmt: skip
        events = list(stream)
        response = stream.get_final_response()
    told = "".join(event.delta for event in events if event.type == "response.function_call_arguments.delta")
    (call,) = [item for item in response.output if item.type == "function_call"]
    assert call.arguments == told and light.model_validate_json(told)


def test_a_transcript(client, dog):
    transcript = client.audio.transcriptions.create(model="nano", file=("dog.wav", dog), response_format="verbose_json")
    assert transcript.duration > 0 and isinstance(transcript.text, str)


def test_vectors(client):
    vectors = client.embeddings.create(model="nano", input=["a dog barks", "rain on a roof"]).data
    assert len(vectors) == 2 and len(vectors[0].embedding) == len(vectors[1].embedding) > 0
    assert all(isinstance(number, float) for number in vectors[0].embedding)


def test_models(client):
    assert [model.id for model in client.models.list()] == ["nano"]


def test_an_error_names_its_field(client):
    part = {"type": "input_audio", "input_audio": {"data": "bm8gc291bmQ=", "format": "wav"}}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**TURN, messages=[{"role": "user", "content": [part]}])
    assert (caught.value.code, caught.value.param) == ("invalid_audio", "messages[0].content[0]")
