import pytest

from qwen2_audio.serve.bodies import parse_json
from qwen2_audio.serve.errors import ApiError
from qwen2_audio.serve.protocol import NEUTRAL, ChatRequest, parse_chat, parse_speech

MESSAGES = [{"role": "user", "content": "hi"}]


def refused(fields):
    with pytest.raises(ApiError) as error:
        parse_chat(fields)
    return error.value


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({}, "messages", "missing"),
        ({"messages": "hi"}, "messages", "valid list"),
        ({"messages": ["hi"]}, "messages[0]", "should be an object"),
        ({"messages": MESSAGES, "temprature": 1}, "temprature", "Did you mean 'temperature'"),
        ({"messages": MESSAGES, "stream": "yes"}, "stream", "boolean"),
        ({"messages": MESSAGES, "stream": 1}, "stream", "boolean"),
        ({"messages": MESSAGES, "seed": 1.5}, "seed", "integer"),
        ({"messages": MESSAGES, "seed": 10**30}, "seed", "less than"),
        ({"messages": MESSAGES, "temperature": True}, "temperature", "number"),
        ({"messages": MESSAGES, "stop": ["a", 1]}, "stop[1]", "string"),
        ({"messages": MESSAGES, "stop": ["a"] * 17}, "stop", "at most 16"),
        ({"messages": MESSAGES, "stream_options": {"include_usag": True}}, "stream_options.include_usag", "honours"),
        ({"messages": MESSAGES, "stream_options": {"include_obfuscation": True}},
         "stream_options.include_obfuscation", "False"),
        ({"messages": MESSAGES, "logit_bias": {"1": "x"}}, "logit_bias.1", "number"),
        ({"messages": MESSAGES, "user": 7}, "user", "string"),
        ({"messages": MESSAGES, "priority": -1}, "priority", "greater"),
        ({"messages": MESSAGES, "metadata": {str(number): "" for number in range(17)}}, "metadata", "at most 16"),
        ({"messages": MESSAGES, "metadata": {"long" * 20: ""}}, f"metadata.{'long' * 20}", "at most 64"),
        ({"messages": MESSAGES, "metadata": {"a": "x" * 513}}, "metadata.a", "at most 512"),
    ],
)  # fmt: skip
def test_the_message_names_the_field(fields, param, words):
    error = refused(fields)
    assert error.param == param
    assert words in error.message and error.status == 400


def test_long_values_are_not_quoted_whole():
    assert len(refused({"messages": "x" * 10_000}).message) < 300


@pytest.mark.parametrize("name", list(NEUTRAL))
def test_values_that_ask_for_nothing_and_others(name):
    accepted, reason = NEUTRAL[name]
    for value in accepted:
        assert parse_chat({"messages": MESSAGES, name: value}) == ChatRequest(messages=MESSAGES)
    error = refused({"messages": MESSAGES, name: {"something": "else"}})
    assert error.param == name and reason in error.message
    assert name not in ChatRequest.model_fields


def test_false_is_not_zero():
    assert refused({"messages": MESSAGES, "store": 0}).param == "store"


def test_null_is_left_out():
    assert parse_chat({"messages": MESSAGES, "tools": None, "no_such_field": None}) == ChatRequest(messages=MESSAGES)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b'{"a": NaN}', b'{"a": "\\ud800"}', b"[" * 10_000, b'{"a": 1} x']
)
def test_what_is_no_json(body):
    with pytest.raises(ApiError, match="not JSON"):
        parse_json(body)


@pytest.mark.parametrize("number", ["1e999", "-1E+309", "1" * 400 + ".5", "9" * 300 + "e9"])
def test_a_number_that_no_float_holds(number):
    with pytest.raises(ApiError, match="a number that no float holds"):
        parse_json(f'{{"a": [1, {{"b": {number}}}]}}'.encode())
    assert parse_json(b'{"a": 1e308, "b": "1e999", "c": 1e-999}') == {"a": 1e308, "b": "1e999", "c": 0.0}


@pytest.mark.parametrize("body", ["null", "[]", "7", '"hi"'])
def test_what_is_no_object(body):
    with pytest.raises(ApiError, match="expected an object"):
        parse_chat(parse_json(body.encode()))


def test_speech_fields_are_checked_too():
    with pytest.raises(ApiError) as error:
        parse_speech({"response_format": "docx"})
    assert error.value.param == "response_format"
    with pytest.raises(ApiError) as error:
        parse_speech({"n": "2"})
    assert error.value.code == "unknown_parameter"
