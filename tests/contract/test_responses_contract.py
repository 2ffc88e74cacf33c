"""/v1/responses by OpenAI's own client: create, stream, go on, forget."""

from __future__ import annotations

import base64
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2 as httpx
import pytest

from kit.clip_files import wav_bytes
from kit.fake_backend import FakeBackend
from kit.live_server import live
from qwen2_audio.engine.structured.tool_calls import call_words, custom_call_words
from qwen2_audio.serve.response_store import ResponseStore, StoredResponse
from qwen2_audio.serve.settings import Settings

openai = pytest.importorskip("openai")
pydantic = pytest.importorskip("pydantic")
DATA = base64.b64encode(wav_bytes()).decode()
SOUND = {"type": "input_audio", "input_audio": {"data": DATA, "format": "wav"}}
F = {"type": "function", "name": "f", "parameters": None, "strict": None}


def custom(form):
    return {"type": "custom", "name": "c", "format": form}


@pytest.fixture(scope="module")
def fake():
    return FakeBackend()


@pytest.fixture(scope="module")
def client(fake):
    with (
        live(fake, Settings(grace=1)) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=20) as client,
    ):
        yield client


def test_a_text(client, fake):
    found = client.responses.create(model="fake", input="say one two", instructions="Be brief.", metadata={"a": "b"})
    assert (found.output_text, found.status, found.object) == ("one two", "completed", "response")
    assert found.metadata == {"a": "b"} and found.usage.output_tokens == 2
    assert found.usage.total_tokens == found.usage.input_tokens + 2
    assert [m["role"] for m in fake.seen[-1][0]] == ["system", "user"]


def test_clips_in_every_form(client):
    forms = [
        SOUND,
        {"type": "input_file", "file_data": f"data:audio/wav;base64,{DATA}", "filename": "dog.wav"},
        {"type": "input_file", "file_data": DATA},
    ]
    content = [*forms, {"type": "input_text", "text": "What is it?"}]
    found = client.responses.create(model="fake", input=[{"role": "user", "content": content}])
    assert found.output_text == "I heard 1 s and 1 s and 1 s"
    assert found.usage.input_tokens_details.audio_tokens == 75 and len(found.usage.heard) == 3


def test_cut_short_is_incomplete(client):
    found = client.responses.create(model="fake", input="say one two three", max_output_tokens=2)
    assert (found.output_text, found.status) == ("one two", "incomplete")
    assert found.incomplete_details.reason == "max_output_tokens"


def test_logprobs(client):
    options = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    (item,) = client.responses.create(model="fake", input="say one two", **options).output
    assert [len(one.top_logprobs) for one in item.content[0].logprobs] == [2, 2]


def test_the_operator_limits_logprobs():
    with (
        live(FakeBackend(), Settings(grace=1, logprobs=1)) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=20) as client,
    ):
        assert client.responses.create(model="fake", input="say one", top_logprobs=1).output_text == "one"
        with pytest.raises(openai.BadRequestError, match="--max-logprobs") as refused:
            client.responses.create(model="fake", input="say one", top_logprobs=2)
    assert refused.value.body["param"] == "top_logprobs"


@pytest.mark.parametrize("most", [None, 2])
def test_streamed_events_add_up_to_the_whole(client, most):
    options = {} if most is None else {"max_output_tokens": most}
    with client.responses.stream(model="fake", input="say one two three", **options) as stream:
        events = list(stream)
    kinds = [event.type for event in events]
    end = "response.completed" if most is None else "response.incomplete"
    assert kinds[:4] == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
    ]  # fmt: skip
    assert kinds[-4:] == [
        "response.output_text.done", "response.content_part.done", "response.output_item.done", end,
    ]  # fmt: skip
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    whole = events[-1].response
    assert "".join(deltas) == whole.output_text == ("one two three" if most is None else "one two")
    assert len({event.item_id for event in events if hasattr(event, "item_id")}) == 1
    assert client.responses.retrieve(whole.id).output_text == whole.output_text


def test_a_conversation_goes_on(client, fake):
    content = [SOUND, {"type": "input_text", "text": "What is it?"}]
    first = client.responses.create(model="fake", input=[{"role": "user", "content": content}], instructions="Once.")
    second = client.responses.create(model="fake", input="say sure", previous_response_id=first.id)
    messages = fake.seen[-1][0]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"], "instructions are not kept"
    assert messages[1]["content"] == first.output_text and messages[0]["content"][0]["audio"] == wav_bytes()
    assert second.previous_response_id == first.id
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError, match="no response"):
        client.responses.create(model="fake", input="say sure", previous_response_id=first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.delete(first.id)


def test_calls_and_what_came_back_in_the_input(client, fake):
    items = [
        {"role": "user", "content": "say one"},
        {"role": "assistant", "content": "One moment."},
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": '{"a":1}'},
        {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_2", "name": "c", "input": "x + y"},
        {"type": "function_call_output", "call_id": "call_1", "output": "42"},
        {"type": "custom_tool_call_output", "call_id": "call_2", "output": [SOUND]},
        {"type": "function_call", "call_id": "call_3", "name": "f", "arguments": ""},
        {"type": "function_call_output", "call_id": "call_3", "output": [{"type": "input_text", "text": "7"}]},
        {"role": "user", "content": "say two"},
    ]
    client.responses.create(model="fake", input=items)
    turns = fake.seen[-1][0]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user", "assistant", "user", "user"]
    called = call_words("f", '{"a": 1}') + "\n" + custom_call_words("c", "x + y")
    assert turns[1]["content"] == f"One moment.\n{called}" and turns[3]["content"] == call_words("f", "{}")
    assert [part.get("text", "clip") for part in turns[2]["content"]] == [
        "<tool_response>\n42\n</tool_response>", "\n", "<tool_response>\n", "clip", "\n</tool_response>",
    ]  # fmt: skip


def test_the_system_turn_describes_the_tools_and_is_not_kept(client, fake):
    named = {"type": "function", "name": "f"}
    options = {"tools": [F, custom({"type": "text"})], "instructions": "Be brief."}
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [named]}
    first = client.responses.create(model="fake", input="say one", tool_choice=allowed, **options)
    system = fake.seen[-1][0][0]["content"]
    assert system.startswith("Be brief.\n\n# Tools") and '"f"' in system and '"c"' not in system
    assert [tool.name for tool in first.tools] == ["f", "c"] and first.parallel_tool_calls is True
    assert first.tool_choice.mode == "auto" and first.output_text == "one"
    client.responses.create(model="fake", input="say two", previous_response_id=first.id)
    assert [turn["role"] for turn in fake.seen[-1][0]] == ["user", "assistant", "user"]
    client.responses.create(model="fake", input="say one", tool_choice=named, parallel_tool_calls=False, **options)
    assert "{0," not in fake.seen[-1][1].constraint[1]
    client.responses.create(model="fake", input="say one", tool_choice="none", **options)
    assert fake.seen[-1][1].constraint is None


def test_what_is_not_stored_is_not_there(client):
    found = client.responses.create(model="fake", input="say one", store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(found.id)


def test_an_error_in_the_middle_of_a_stream(client):
    with pytest.raises(openai.APIError) as failed, client.responses.stream(model="fake", input="break") as stream:
        list(stream)
    assert failed.value.code == "internal_error" and "its log says why" in failed.value.message
    events = streamed(client, input="break")
    assert events[-1] == {
        "type": "error", "sequence_number": len(events) - 1, "code": "internal_error", "param": None,
        "message": failed.value.message, "error": failed.value.body,
    }  # fmt: skip


def streamed(client, **body):
    """The events, each checked against the type that OpenAI's client has for it."""
    reply = httpx.post(f"{client.base_url}responses", json={**body, "stream": True}, timeout=20)
    known, events = pydantic.TypeAdapter(openai.types.responses.ResponseStreamEvent), []
    for block in reply.text.removesuffix("\n\n").split("\n\n"):
        kind, data = block.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert kind == f"event: {events[-1]['type']}"
        known.validate_python(events[-1])
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


@pytest.mark.parametrize("most", [None, 6])
def test_events_are_of_the_client_s_types_and_tell_the_items_of_the_response(client, most):
    call = call_words("f", '{"a": 1}')
    said = f"say So: {call}\n{custom_call_words('c', 'x + y')}"
    options = {} if most is None else {"max_output_tokens": most}
    with_tools = streamed(client, input=said, tools=[F, custom({"type": "text"})], **options)
    told = streamed(client, input="say one two", include=["message.output_text.logprobs"], top_logprobs=2)
    for events in (with_tools, told):
        whole = events[-1]["response"]
        openai.types.responses.Response.model_validate(whole)
        done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
        assert whole["output"] == done and len({item["id"] for item in done}) == len(done)
        for event in events:
            if "item_id" in event:
                assert event["item_id"] == done[event["output_index"]]["id"]
    kinds = [item["type"] for item in with_tools[-1]["response"]["output"]]
    assert kinds == ["message", "function_call", "custom_tool_call"][: None if most is None else 2]
    assert with_tools[-1]["response"]["output"][1]["status"] == ("completed" if most is None else "incomplete")


def test_a_client_that_leaves_cancels_its_answer_and_nothing_is_stored(client, fake):
    stream = client.responses.create(model="fake", input="loop", stream=True)
    identifier = next(iter(stream)).response.id
    stream.close()
    end = time.monotonic() + 10
    while fake.open and time.monotonic() < end:
        time.sleep(0.01)
    assert fake.ends[-1] == "cancelled"
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(identifier)


def test_two_go_on_with_one_response_at_once(client, fake):
    first = client.responses.create(model="fake", input="say one")
    with ThreadPoolExecutor() as pool:
        asked = [f"late {number}" for number in range(4)]
        options = {"model": "fake", "previous_response_id": first.id}
        answers = list(pool.map(lambda text: client.responses.create(input=text, **options), asked))
    assert [answer.output_text for answer in answers] == ["0", "1", "2", "3"]
    assert all(len(messages) == 3 for messages, *_ in fake.seen[-4:])
    client.responses.create(model="fake", input="say x", previous_response_id=answers[2].id)
    assert [turn["content"] for turn in fake.seen[-1][0]] == ["say one", "one", "late 2", "2", "say x"]


def test_null_counts_as_absent_in_the_input_and_in_text(client, fake):
    items = [
        {"type": None, "role": "user", "content": "say one"},
        {"role": "assistant", "content": "Wait.", "tool_calls": None},
        {"type": "function_call", "name": "f", "arguments": "{}", "status": None},
        {"type": "function_call_output", "call_id": "c", "output": "1"},
        {"role": "user", "content": "say two"},
    ]
    found = client.post("/responses", cast_to=object, body={"input": items, "text": {"format": None}})
    assert found["text"] == {"format": {"type": "text"}}
    assert fake.seen[-1][0][1]["content"] == "Wait.\n" + call_words("f", "{}")


def test_a_stored_response_is_given_whole(client):
    stored = client.responses.create(model="fake", input="say one")
    assert client.responses.retrieve(stored.id, stream=False).output_text == "one"
    with pytest.raises(openai.BadRequestError, match="stream cannot be honoured") as refused:
        client.responses.retrieve(stored.id, stream=True)
    assert refused.value.body["param"] == "stream"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"input": [{"type": ["message"], "role": "user", "content": "x"}]}, "input[0]"),
        ({"input": ["say one"]}, "input[0]"),
        (
            {
                "input": [
                    {"role": "assistant", "content": "x", "tool_calls": "f"},
                    {"type": "function_call", "name": "f", "arguments": "{}"},
                ]
            },
            "input[0].tool_calls",
        ),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].arguments"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{"}]}, "input[0].arguments"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{}", "extra": 1}]}, "input[0].extra"),
        ({"input": [{"type": "custom_tool_call", "input": "x"}]}, "input[0].name"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": {"a": 1}}]}, "input[0].output"),
        ({"input": [{"type": "function_call_output", "output": [{"type": "input_image"}]}]}, "input[0].output[0]"),
        (
            {"input": [{"type": "function_call_output", "output": [{**SOUND, "input_audio": {"data": "AAAA"}}]}]},
            "input[0].output[0]",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}]},
            "input[0].content[0].file_id",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0]"),
        *[
            ({"input": [{"role": "user", "content": [{"type": kind, **part}]}]}, f"input[0].content[0].{key}")
            for kind, part, key in (
                ("input_file", {"file_data": DATA, "file_dat": DATA}, "file_dat"),
                ("input_file", {"file_data": "@@@"}, "file_data"),
                ("input_file", {"file_data": 5}, "file_data"),
                ("input_file", {"file_url": "dog.wav"}, "file_url"),
                ("input_json", {"data": 1, "dat": 2}, "dat"),
            )
        ],
        ({"input": [{"role": "user", "content": [{**SOUND, "input_audio": {"data": "AAAA"}}]}]}, "input[0].content[0]"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [F], "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [F], "tool_choice": {"type": "function", "name": "g"}}, "tool_choice"),
        ({"tools": [F], "tool_choice": {"type": "custom", "name": "f"}}, "tool_choice"),
        ({"tools": [F], "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"tools": [F], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}}, "tool_choice.tools"),
        ({"tools": [F], "top_logprobs": 1}, "top_logprobs"),
        ({"tools": [{**F, "format": {"type": "text"}}]}, "tools[0].format"),
        ({"tools": [{**F, "parameters": {"not": {}}, "strict": True}]}, "tools"),
        ({"tools": [{"type": "custom", "name": "c", "parameters": {}}]}, "tools[0].parameters"),
        ({"tools": [custom({"type": "grammar", "syntax": "lark"})]}, "tools[0].format.definition"),
        ({"tools": [custom({"type": "text", "syntax": "lark"})]}, "tools[0].format"),
        ({"tools": [custom({"type": "grammar", "syntax": "lark", "definition": "x"})]}, "tools[0].format.definition"),
        ({"tools": [custom({"type": "grammar", "syntax": "regex", "definition": "("})]}, "tools[0].format.definition"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        *[
            ({"text": {"format": {"type": kind, **more}}}, f"text.format.{key}")
            for kind, more, key in (
                ("json_object", {"schema": {}}, "schema"),
                ("text", {"strict": True}, "strict"),
                ("json_schema", {"name": "x", "schema": {}, "scheme": {}}, "scheme"),
                ("json_schema", {"name": "x", "schema": {}, "strict": "yes"}, "strict"),
                ("json_schema", {"name": 5, "schema": {}}, "name"),
                ("json_schema", {"schema": {}}, "name"),
            )
        ],
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"not": {}}}}}, "text.format.schema"),
        ({"text": {"verbosity": "low"}}, "text"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"reasoning": {"effort": "low"}}, "reasoning"),
        ({"inptu": "x"}, "inptu"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"model": "other"}, "model"),
        ({"metadata": {str(number): "x" for number in range(17)}}, "metadata"),
        ({"metadata": {"x" * 65: "x"}}, f"metadata.{'x' * 65}"),
        ({"metadata": {"a": "x" * 513}}, "metadata.a"),
        ({"previous_response_id": "resp_x"}, "previous_response_id"),
    ],
)
def test_what_is_wrong_is_named(client, fields, param):
    with pytest.raises(openai.APIStatusError) as refused:
        client.post("/responses", cast_to=object, body={"input": "say one", **fields})
    assert refused.value.status_code in (400, 404)
    assert refused.value.body["param"] == param


def test_the_store_stays_within_its_bounds():
    def response(number, size):
        return StoredResponse(f"r{number}", b"{}", [{"role": "user", "content": "x" * size}])

    store = ResponseStore(12_000)
    for number in range(5):
        store.put(response(number, 2000))
    assert store.nbytes <= 12_000 and store.get("r0") is None and store.get("r1") is None
    assert store.get("r2") is not None
    store.put(response(5, 2000))
    assert store.get("r3") is None and store.get("r2") is not None, "the least recently used one goes"
    store.put(response(6, 20_000))
    assert store.get("r6") is None and store.get("r5") is not None
    store.put(StoredResponse("r7", b"x" * 12_000, []))
    assert store.get("r7") is None, "the body counts"
    assert store.delete("r5") and not store.delete("r5")
    assert store.nbytes == sum(store.get(name).nbytes for name in ("r2", "r4"))


def test_what_a_stored_response_takes_is_not_only_its_characters():
    empty = {"role": "user", "content": [{"type": "text", "text": ""} for _ in range(1000)]}
    emoji = {"role": "user", "content": "\U0001f415" * 1000}
    assert StoredResponse("r1", b"{}", [empty]).nbytes > 1000 * (sys.getsizeof({}) + sys.getsizeof(""))
    assert StoredResponse("r2", b"{}", [emoji]).nbytes > 4000
