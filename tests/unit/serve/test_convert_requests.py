import base64

import pytest

from qwen2_audio.serve.convert import messages_of, params_of
from qwen2_audio.serve.errors import ApiError
from qwen2_audio.serve.media import Link
from qwen2_audio.serve.protocol import parse_chat
from qwen2_audio.serve.settings import Settings
from qwen2_audio.types import SamplingParams

SOUND = base64.b64encode(b"sound").decode()


def converted(*messages):
    return messages_of(parse_chat({"messages": list(messages)}), Settings())


def user(*parts):
    return {"role": "user", "content": list(parts)}


def test_roles_and_texts():
    assert converted(
        {"role": "developer", "content": "be brief"},
        user({"type": "text", "text": "hi"}),
        {"role": "assistant", "content": "hello", "refusal": None, "tool_calls": [], "audio": None},
        {"role": "system", "content": ""},
    ) == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": "hello"},
        {"role": "system", "content": ""},
    ]


def test_control_tokens_are_handed_on_as_text():
    text = "<|im_end|><|AUDIO|>"
    assert converted({"role": "user", "content": text}) == [{"role": "user", "content": text}]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "input_audio": {"data": SOUND, "format": "wav"}},
        {"type": "input_audio", "input_audio": {"data": f"data:audio/mp3;base64,{SOUND}"}},
        {"input_audio": {"data": SOUND}},
        {"type": "audio_url", "audio_url": {"url": f"data:;base64,{SOUND}"}, "uuid": "x"},
        {"type": "audio", "audio": f"data:audio/wav;base64,{SOUND}"},
        {"type": "audio", "audio": SOUND},
    ],
)
def test_clips_that_are_sent(part):
    assert converted(user(part)) == [{"role": "user", "content": [{"type": "audio", "audio": b"sound"}]}]


@pytest.mark.parametrize("url", ["http://x.org/a", "HTTPS://x.org/a", "file:///a.wav"])
def test_clips_that_are_named(url):
    (message,) = converted(user({"type": "audio", "audio_url": url}))
    assert message["content"][0]["audio"] == Link(url, "messages[0].content[0].audio_url")


@pytest.mark.parametrize(
    ("message", "param", "words"),
    [
        ({"content": "hi"}, "messages[0].role", "no role"),
        ({"role": "usr", "content": "hi"}, "messages[0].role", "Did you mean 'user'"),
        ({"role": "<|im_end|>", "content": "hi"}, "messages[0].role", "another word"),
        ({"role": ["user"], "content": "hi"}, "messages[0].role", "expected one of"),
        ({"role": "user"}, "messages[0].content", "no content"),
        ({"role": "user", "content": 7}, "messages[0].content", "no content"),
        ({"role": "user", "content": []}, "messages[0].content", "no content"),
        ({"role": "user", "content": "hi", "nmae": "me"}, "messages[0].nmae", "Did you mean 'name'"),
        ({"role": "assistant", "content": "x", "tool_calls": [{}]}, "messages[0].tool_calls[0]", "call of a function"),
        (user("hi"), "messages[0].content[0]", "expected an object"),
        (user({"type": "text"}), "messages[0].content[0].text", "missing"),
        (user({"type": "text", "text": 7}), "messages[0].content[0].text", "is a number"),
        (user({"type": "text", "text": "x", "txet": 1}), "messages[0].content[0].txet", "Did you mean 'text'"),
        (user({"type": "image_url", "image_url": {"url": "x"}}), "messages[0].content[0]", "'image_url'"),
        (user({"type": "file"}), "messages[0].content[0]", "'file'"),
        (user({}), "messages[0].content[0]", "None"),
        (user({"type": ["text"]}), "messages[0].content[0]", "expected|takes"),
        (user({"type": "input_audio"}), "messages[0].content[0].input_audio", "missing"),
        (user({"type": "input_audio", "input_audio": {}}), "messages[0].content[0].input_audio.data", "missing"),
        (user({"type": "input_audio", "input_audio": {"data": SOUND, "format": "pcm16"}}),
         "messages[0].content[0].input_audio.format", "Raw samples"),
        (user({"type": "input_audio", "input_audio": {"data": "%"}}),
         "messages[0].content[0].input_audio.data", "base64"),
        (user({"type": "audio_url", "audio_url": {"url": 7}}), "messages[0].content[0].audio_url.url", "is a number"),
        (user({"type": "audio_url"}), "messages[0].content[0]", "names 0 clips"),
        (user({"type": "audio", "audio": "http://a", "audio_url": "http://b"}), "messages[0].content[0]", "names 2"),
        (user({"type": "audio_url", "uuid": "x"}), "messages[0].content[0]", "names 0"),
        (user({"type": "audio", "audio": "dog.wav"}), "messages[0].content[0].audio", "base64"),
        (user({"type": "audio", "audio": "ftp://a/b"}), "messages[0].content[0].audio", "data: URL"),
        (user({"type": "audio_url", "audio_url": "http://a/b"}), "messages[0].content[0].audio_url", "is a string"),
    ],
)  # fmt: skip
def test_refusals_name_the_place(message, param, words):
    with pytest.raises(ApiError, match=words) as refused:
        converted(message)
    assert refused.value.param == param


def test_no_messages():
    with pytest.raises(ApiError, match="empty"):
        converted()


def params(**fields):
    return params_of(parse_chat({"messages": [{}], **fields}), Settings(answers=4))


def test_names_of_other_servers():
    assert params(max_tokens=5) == params(max_completion_tokens=5) == params(max_tokens=5, max_completion_tokens=5)
    assert params(top_k=-1) == SamplingParams(top_k=0)
    assert params(stop="x") == params(stop=["x"]) == SamplingParams(stop=("x",))
    assert params(logprobs=True) == SamplingParams(logprobs=0)
    assert params(logprobs=True, top_logprobs=20) == SamplingParams(logprobs=20)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"n": 5}, "n"),
        ({"stream_options": {}}, "stream_options"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"²": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"stop": ["x", ""]}, "stop"),
    ],
)
def test_values_that_exclude_each_other(fields, param):
    with pytest.raises(ApiError) as refused:
        params(**fields)
    assert refused.value.param == param


def test_a_grammar_has_a_length():
    with pytest.raises(ApiError, match="grammar has 16385 characters; expected 16384 at most") as error:
        params(structured_outputs={"grammar": "x" * 16385})
    assert error.value.param == "structured_outputs.grammar" and error.value.status == 400
    assert params(structured_outputs={"grammar": "x" * 16384}).grammar
    tool = {"type": "function", "function": {"name": "f", "parameters": {"description": "x" * 20_000}}}
    assert len(params(tools=[tool], tool_choice="required").grammar) > 16384, "made here, of tools"
