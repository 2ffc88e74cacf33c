"""Tools of a request: what of them stands in the conversation, what the answer is held to, and what of it is a call."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest

from qwen2_audio.engine.structured import tool_calls
from qwen2_audio.engine.structured.tool_calls import call_words, system_words
from qwen2_audio.serve.answers import Envelope, completion_body
from qwen2_audio.serve.convert import clip_params, conversation_of, messages_of, params_of
from qwen2_audio.serve.errors import ApiError
from qwen2_audio.serve.input_items import messages_of_input
from qwen2_audio.serve.protocol import parse_chat
from qwen2_audio.serve.response_items import OutputItems
from qwen2_audio.serve.settings import Settings
from qwen2_audio.serve.tool_events import ToolEvents
from qwen2_audio.serve.tools import tool_use_of
from qwen2_audio.text.chat_template import DEFAULT_SYSTEM
from qwen2_audio.types import Chunk, Completion, TokenLogprob, Usage

SOUND = base64.b64encode(b"sound").decode()
CLIP = {"type": "input_audio", "input_audio": {"data": SOUND}}
F = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {}}}}}
G = {"type": "function", "function": {"name": "g", "description": "Does G."}}
HI = [{"role": "user", "content": "hi"}]


def chat(messages=HI, **fields):
    return parse_chat({"messages": messages, **fields})


def converted(messages, **fields):
    return messages_of(chat(messages, **fields), Settings())


def test_the_system_turn_describes_the_tools():
    words = system_words(tool_use_of(chat(tools=[F, G])).tools)
    assert '"description": "Does G."' in words
    system = {"role": "system", "content": f"{DEFAULT_SYSTEM}\n\n{words}"}
    assert converted(HI, tools=[F, G]) == [system, *HI]
    own = [{"role": "developer", "content": "Be brief."}, *HI]
    assert converted(own, tools=[F, G])[0] == {"role": "system", "content": f"Be brief.\n\n{words}"}
    parts = [{"role": "system", "content": [{"type": "text", "text": "Be brief."}, CLIP]}, *HI]
    assert converted(parts, tools=[F, G])[0]["content"][-1] == {"type": "text", "text": f"\n\n{words}"}
    for none in ({"tools": []}, {"tools": [F], "tool_choice": "none"}, {}):
        assert converted(HI, **none) == HI
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [G]}}
    assert '"f"' not in converted(HI, tools=[F, G], tool_choice=allowed)[0]["content"]


def test_earlier_calls_and_what_came_back():
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":"ö"}'}}
    f, g = call_words("f", '{"a": "ö"}'), call_words("g", "{}")
    messages = [
        *HI,
        {"role": "assistant", "content": None, "tool_calls": [call, {"function": {"name": "g", "arguments": ""}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "42"},
        {"role": "tool", "content": [{"type": "text", "text": "listen"}, CLIP]},
        {"role": "assistant", "content": "So.", "tool_calls": [call]},
        {"role": "assistant", "content": [{"type": "text", "text": "So."}], "tool_calls": [call]},
        {"role": "tool", "content": None},
    ]
    messages[1]["tool_calls"][1]["function"]["arguments"] = None
    messages[1]["tool_calls"][1]["type"] = None
    before, after = ({"type": "text", "text": text} for text in ("<tool_response>\n", "\n</tool_response>"))
    assert converted(messages)[1:] == [
        {"role": "assistant", "content": f"{f}\n{g}"},
        {  # what several tools gave back is one turn, as in the template of Qwen2.5
            "role": "user",
            "content": [
                {"type": "text", "text": "<tool_response>\n42\n</tool_response>"},
                {"type": "text", "text": "\n"},
                before,
                {"type": "text", "text": "listen"},
                {"type": "audio", "audio": b"sound"},
                after,
            ],
        },
        {"role": "assistant", "content": f"So.\n{f}"},
        {"role": "assistant", "content": [{"type": "text", "text": "So."}, {"type": "text", "text": f"\n{f}"}]},
        {"role": "user", "content": "<tool_response>\n\n</tool_response>"},
    ]
    assert clip_params(chat([*messages, {"role": "user", "content": [CLIP]}], tools=[F]).messages) == [
        "messages[3].content[1]", "messages[7].content[0]",
    ]  # fmt: skip


def test_what_tools_gave_back_comes_in_the_order_of_their_calls():
    """The model is told no ids."""
    calls = [{"id": name, "function": {"name": "f", "arguments": "{}"}} for name in "abc"]
    results = [{"role": "tool", "tool_call_id": name, "content": [{"type": "text", "text": name}]} for name in "xcab"]
    results[1]["content"].append(CLIP)
    results[3]["content"].append(CLIP)
    messages = [*HI, {"role": "assistant", "tool_calls": calls}, *results, *HI, {"role": "tool", "content": "z"}]
    turn = converted(messages)[2]["content"]
    assert [part.get("text") for part in turn if part.get("text", "-") in "abcx"] == ["a", "b", "c", "x"]
    assert clip_params(messages) == ["messages[5].content[1]", "messages[3].content[1]"]
    items = [{"type": "function_call", "call_id": name, "name": "f", "arguments": "{}"} for name in "ab"]
    items += [{"type": "function_call_output", "call_id": name, "output": name} for name in "ba"]
    found = conversation_of(*messages_of_input(items)[:1], Settings(), "input")[-1]["content"]
    assert found.index("\na\n") < found.index("\nb\n")


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": "a", "tool_calls": [{}]}, "messages[0].tool_calls"),
        ({"role": "assistant", "tool_calls": "f"}, "messages[0].tool_calls"),
        ({"role": "assistant", "content": "a", "tool_calls": {}}, "messages[0].tool_calls"),
        ({"role": "assistant", "tool_calls": [3]}, "messages[0].tool_calls[0]"),
        (
            {"role": "assistant", "tool_calls": [{"type": "custom", "custom": {}}]},
            "messages[0].tool_calls[0].custom.name",
        ),
        (
            {"role": "assistant", "tool_calls": [{"type": "custom", "custom": {"name": "c"}}]},
            "messages[0].tool_calls[0].custom.input",
        ),
        ({"role": "assistant", "tool_calls": [{"function": {}}]}, "messages[0].tool_calls[0].function.name"),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]},
            "messages[0].tool_calls[0].function.arguments",
        ),
    ],
)
def test_calls_that_are_none(message, param):
    with pytest.raises(ApiError) as error:
        converted([message])
    assert error.value.param == param


def test_what_the_answer_is_held_to():
    def params(**fields):
        return params_of(chat(tools=[F, G], **fields), Settings())

    assert (params().constraint[0], params().trigger, params().stop) == ("grammar", "<tool_call>", ())
    assert params(tool_choice="none").constraint is None
    odd = {"type": "function", "function": {"name": "odd", "parameters": {"not": {}}}}
    free = params_of(chat(tools=[odd]), Settings()).constraint[1]
    assert '"not"' not in free and '"odd' in free.replace("\\", "")
    strict = {**odd, "function": {**odd["function"], "strict": True}}
    assert '"not"' in params_of(chat(tools=[strict]), Settings()).constraint[1]
    assert not params().trigger_once and params(parallel_tool_calls=False).trigger_once
    assert params(parallel_tool_calls=False, stop=["x"]).stop == ("x",), "a text in a call may hold any tag"
    kind, both = params(tool_choice="required").constraint
    assert kind == "grammar" and "call_1" in both and "{0,15}" in both
    assert "{0," not in params(tool_choice="required", parallel_tool_calls=False).constraint[1]
    named = params(tool_choice={"type": "function", "function": {"name": "g"}}).constraint[1]
    assert '\\"g\\"' in named and '\\"f\\"' not in named
    held = params(response_format={"type": "json_object"}).constraint
    assert held[0] == "grammar" and "calls | answer" in held[1]
    assert params(tool_choice="none", response_format={"type": "json_object"}).constraint[0] == "json_schema"
    both = params_of(chat(tools=[odd], response_format={"type": "json_object"}), Settings()).constraint[1]
    assert '"not"' not in both and "calls | answer" in both
    for fields in ({"tools": [strict]}, {"tools": [odd], "tool_choice": "required"}):
        with pytest.raises(ApiError) as error:
            params_of(chat(response_format={"type": "json_object"}, **fields), Settings())
        assert error.value.param == "tools"


@pytest.mark.parametrize("kind", ["string", ["array", "null"], 3])
def test_arguments_are_an_object(kind):
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": kind}}}
    with pytest.raises(ApiError) as error:
        params_of(chat(tools=[G, tool]), Settings())
    assert error.value.param == "tools[1].function.parameters"
    for kind in ("object", ["object", "null"], None):
        tool["function"]["parameters"]["type"] = kind
        assert params_of(chat(tools=[tool], tool_choice="required"), Settings()).constraint


def test_null_counts_as_absent():
    """As clients send it that dump all fields of a type."""
    tool = {**F, "custom": None, "cache_control": None, "function": {**F["function"], "strict": None, "other": None}}
    named = {"name": "n", "schema": None, "strict": None, "other": None}
    asked = chat(tools=[tool], response_format={"type": "json_schema", "json_schema": named, "other": None})
    assert asked.tools[0].function.name == "f" and asked.response_format.json_schema.json_schema is None
    with pytest.raises(ApiError, match="is missing"):
        chat(tools=[{"type": "function", "function": {"name": None}}])


def test_many_tools_are_looked_at_at_once(monkeypatch):
    checked = []
    monkeypatch.setattr(tool_calls, "check", checked.append)
    params_of(chat(tools=[{"type": "function", "function": {"name": f"f{n}"}} for n in range(128)]), Settings())
    assert len(checked) == 1


TEXT = "\n".join(["One moment.", call_words("f", '{"a": [1, 2]}'), call_words("g", "{}")])
LOGPROB = TokenLogprob(1, "x", b"x", -1.0)


def events_of(use, texts, reason="stop", **options):
    async def chunks():
        for text in texts:
            yield Chunk(text, logprobs=(LOGPROB,), num_tokens=1)
        yield Chunk("", reason, Usage(1, 0, len(texts)))

    async def collect():
        events = ToolEvents(Envelope("m"), use, **{"logprobs": False, "usage": False, **options}).encode(chunks())
        return b"".join([event async for event in events])

    lines = asyncio.run(collect()).decode().split("\n\n")
    return [json.loads(line[6:])["choices"][0] for line in lines if line.startswith("data: {")]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_stream_joins_to_the_whole(size):
    use = tool_use_of(chat(tools=[F, G]))
    body = completion_body(Envelope("m"), [Completion(TEXT, "stop", Usage(1, 0, 1))], logprobs=False, use=use)
    (choice,) = body["choices"]
    assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] == "One moment."
    calls = [(call["function"]["name"], call["function"]["arguments"]) for call in choice["message"]["tool_calls"]]
    assert calls == [("f", '{"a": [1, 2]}'), ("g", "{}")]
    choices = events_of(use, [TEXT[i : i + size] for i in range(0, len(TEXT), size)])
    assert choices[-1]["finish_reason"] == "tool_calls"
    assert "".join(one["delta"].get("content") or "" for one in choices) == "One moment."
    streamed, ids = {}, []
    for call in (call for one in choices for call in one["delta"].get("tool_calls", ())):
        assert set(call) <= {"index", "id", "type", "function"}
        ids += [call["id"]] if "id" in call else []
        name, arguments = streamed.get(call["index"], ("", ""))
        streamed[call["index"]] = (name + call["function"].get("name", ""), arguments + call["function"]["arguments"])
    assert list(streamed.values()) == calls and len(set(ids)) == 2


@pytest.mark.parametrize(
    ("fields", "text", "reason", "expected"),
    [
        ({"tool_choice": {"type": "function", "function": {"name": "g"}}}, call_words("g", "{}"), "stop", "stop"),
        ({}, call_words("g", "{}"), "stop", "tool_calls"),
        ({}, call_words("g", "{}")[:-14], "length", "length"),
        ({}, call_words("f", '{"a": "x"}')[:-18], "stop", "stop"),  # by a stop string, in the call
        ({}, f"{call_words('g', '{}')}\n{call_words('f', '{}')[:-15]}", "stop", "stop"),
        ({"parallel_tool_calls": False}, call_words("g", "{}"), "stop", "tool_calls"),
        ({}, "No.", "stop", "stop"),
    ],
)
def test_why_it_ends(fields, text, reason, expected):
    use = tool_use_of(chat(tools=[F, G], **fields))
    body = completion_body(Envelope("m"), [Completion(text, reason, Usage(1, 0, 1))], logprobs=False, use=use)
    assert body["choices"][0]["finish_reason"] == expected == events_of(use, [text], reason)[-1]["finish_reason"]
    assert ("tool_calls" in body["choices"][0]["message"]) == (text != "No.")


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize("length", [1, 9, 12, 20])
def test_of_a_call_that_is_cut_before_its_arguments_nothing_is_said(size, length):
    for fields, reasons in (({}, ["length"]), ({"tool_choice": "required"}, ["length", "stop"])):
        use, text = tool_use_of(chat(tools=[F], **fields)), call_words("f", "{}")[:length]
        for reason in reasons:
            answer = Completion(text, reason, Usage(1, 0, 1))
            (choice,) = completion_body(Envelope("m"), [answer], logprobs=False, use=use)["choices"]
            choices = events_of(use, [text[i : i + size] for i in range(0, length, size)], reason)
            assert choice["finish_reason"] == choices[-1]["finish_reason"] == reason
            assert not choice["message"]["content"] and not any(one["delta"].get("content") for one in choices)
            (item,) = OutputItems(use, lambda _: []).items_of(answer, "incomplete")
            assert item["content"][0]["text"] == ""
            if fields:
                assert choice["message"]["content"] is choices[0]["delta"]["content"] is None


def test_a_whole_call_is_complete_where_the_answer_is_cut_behind_it():
    use = tool_use_of(chat(tools=[F, G]))
    for text, status in ((f'{TEXT}\n<tool_call>\n{{"na', "completed"), (TEXT[:-15], "incomplete")):
        items = OutputItems(use, lambda _: []).items_of(Completion(text, "length", Usage(1, 0, 1)), "incomplete")
        assert [item["status"] for item in items] == ["completed", "completed", status]


def test_log_probabilities_come_once_for_each_token():
    use, pieces = tool_use_of(chat(tools=[F, G])), [TEXT[i : i + 3] for i in range(0, len(TEXT), 3)]
    told = [one["logprobs"] for one in events_of(use, pieces, logprobs=True) if one["logprobs"] is not None]
    assert sum(len(one["content"]) for one in told) == len(pieces)
