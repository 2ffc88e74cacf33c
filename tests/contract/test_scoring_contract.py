"""Scoring of given text, prefilled answers and tokens, after vLLM's own tests of these fields.

vLLM tests/entrypoints/openai: prompt_logprobs of a chat (0, 1, None and a negative number), more than one of them,
zero, some and too many logprobs, echo with continue_final_message, and /tokenize with its inverse.
"""

from __future__ import annotations

import base64

import httpx2 as httpx
import pytest

import qwen2_audio as qa
from kit.clip_files import wav_bytes
from kit.live_server import live
from qwen2_audio.api.service import Service
from qwen2_audio.serve.settings import Settings

openai = pytest.importorskip("openai")
SOUND = {
    "type": "input_audio",
    "input_audio": {"data": base64.b64encode(wav_bytes()).decode(), "format": "wav"},
}
TURNS = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "Who won?"},
    {"role": "assistant", "content": "The dog."},
    {"role": "user", "content": "Where?"},
]
SAYING = "Here is a common saying about apple. An apple a day, keeps"


@pytest.fixture(scope="module")
def server(tiny_chat):
    with live(Service(tiny_chat.model, tiny_chat.processor, name="tiny"), Settings(grace=1)) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def http(server):
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def ask(client, messages=TURNS, **more):
    own = {key: more.pop(key) for key in ("logprobs", "top_logprobs", "stream", "n") if key in more}
    return client.chat.completions.create(
        model="tiny", messages=messages, max_completion_tokens=5, temperature=0, extra_body=more, **own
    )


@pytest.mark.parametrize("asked", [0, 1, None, -5])
def test_prompt_logprobs(client, tiny_chat, asked):
    if asked is not None and asked < 0:
        with pytest.raises(openai.BadRequestError):
            ask(client, prompt_logprobs=asked)
        return
    answer = ask(client, prompt_logprobs=asked)
    if asked is None:
        assert getattr(answer, "prompt_logprobs", None) is None
        return
    found = answer.prompt_logprobs
    prompt = tiny_chat.service().prompt(TURNS).ids
    assert len(found) == answer.usage.prompt_tokens == len(prompt)
    assert found[0] is None
    for token, entry in zip(prompt[1:], found[1:], strict=True):
        own = entry[str(token)]
        assert own["logprob"] <= 0 and own["rank"] >= 1 and isinstance(own["decoded_token"], str)
        assert len(entry) == (1 if asked == 0 or own["rank"] <= asked else 1 + asked)


def test_prompt_logprobs_of_a_clip_s_positions_are_null(client):
    content = [SOUND, {"type": "text", "text": "What is it?"}]
    found = ask(client, [{"role": "user", "content": content}], prompt_logprobs=0).prompt_logprobs
    assert found.count(None) == 1 + 25


def test_prompt_logprobs_are_once_for_all_answers_and_never_streamed(client):
    assert len(ask(client, prompt_logprobs=0, n=2).choices) == 2
    with pytest.raises(openai.BadRequestError, match="prompt_logprobs are not streamed"):
        ask(client, prompt_logprobs=0, stream=True)
    with pytest.raises(openai.BadRequestError, match="at most 20 tokens beside one"):
        ask(client, prompt_logprobs=21)


@pytest.mark.parametrize("more", [{}, {"logprobs": False}])
def test_no_logprobs_unless_asked_for(client, more):
    assert ask(client, **more).choices[0].logprobs is None


@pytest.mark.parametrize("asked", [0, 5])
def test_some_logprobs(client, asked):
    for token in ask(client, logprobs=True, top_logprobs=asked).choices[0].logprobs.content:
        assert len(token.top_logprobs) == asked


@pytest.mark.parametrize("asked", [21, -1, -2])
def test_too_many_logprobs(client, asked):
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, logprobs=True, top_logprobs=asked)
    assert refused.value.body["param"] == "top_logprobs"


def test_all_of_the_vocabulary_where_the_operator_allows_it(tiny_chat):
    service = Service(tiny_chat.model, tiny_chat.processor, name="tiny")
    with live(service, Settings(grace=1, logprobs=-1)) as server, httpx.Client(base_url=server.url) as http:
        body = {"messages": TURNS, "max_tokens": 1, "logprobs": True, "top_logprobs": -1, "prompt_logprobs": -1}
        found = http.post("/v1/chat/completions", json=body).json()
    (token,) = found["choices"][0]["logprobs"]["content"]
    assert len(token["top_logprobs"]) == len(found["prompt_logprobs"][3]) == 512


@pytest.mark.parametrize("echo", [True, False])
@pytest.mark.parametrize("stream", [True, False])
def test_echo_and_continue_final_message(client, tiny_chat, echo, stream):
    messages = [{"role": "user", "content": "tell me a common saying"}, {"role": "assistant", "content": SAYING}]
    answer = ask(client, messages, continue_final_message=True, add_generation_prompt=False, echo=echo, stream=stream)
    if stream:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in answer)
    else:
        text = answer.choices[0].message.content
    params = qa.SamplingParams(max_tokens=5, temperature=0)
    expected = tiny_chat.chat(messages, params, continue_final_message=True).text
    assert text == (SAYING if echo else "") + expected
    assert tiny_chat.chat(messages, params).text != expected, "the end of the prompt makes no difference"


def test_an_answer_is_continued_from_its_text():
    """The beginning of nano's answer, given back, is continued by the rest of it."""
    nano, params = qa.load(device="cpu", dtype="float32"), qa.SamplingParams(temperature=0, logprobs=0)
    asked = [qa.user("What is this sound?", audio=qa.nano_path() / "clips" / "dog.wav")]
    ids = [one.token for one in nano.chat(asked, params).logprobs]
    begun = nano.processor.decode(ids[:4])
    assert nano.processor.tokenizer.encode_plain(begun)[0] == ids[:4] and len(ids) > 6
    rest = nano.chat([*asked, qa.assistant(begun)], params, continue_final_message=True)
    assert [one.token for one in rest.logprobs] == ids[4:]


def test_two_ends_at_once(client):
    with pytest.raises(openai.BadRequestError, match="give one of them"):
        ask(client, continue_final_message=True, add_generation_prompt=True)


def test_tokenize_and_back(http, tiny_chat):
    tokenizer = tiny_chat.processor.tokenizer
    for text in ("This is a test prompt.", "line\n\nline", "<|im_start|>user\nHi<|im_end|>"):
        found = http.post("/tokenize", json={"prompt": text, "return_token_strs": True}).json()
        assert found["tokens"] == tokenizer(text)["input_ids"]
        assert found["count"] == len(found["tokens"]) == len(found["token_strs"])
        assert found["max_model_len"] == 2048
        back = http.post("/detokenize", json={"model": "tiny", "tokens": found["tokens"]})
        assert back.json() == {"prompt": text}
    plain = http.post("/tokenize", json={"prompt": "<|im_end|>", "add_special_tokens": False}).json()
    assert plain["count"] > 1 and plain["token_strs"] is None


@pytest.mark.parametrize("add", [True, False])
@pytest.mark.parametrize("goes_on", [True, False])
def test_tokenize_messages(http, tiny_chat, add, goes_on):
    body = {"messages": TURNS, "add_generation_prompt": add, "continue_final_message": goes_on}
    found = http.post("/tokenize", json=body)
    if add and goes_on:
        assert (found.status_code, found.json()["error"]["param"]) == (400, "continue_final_message")
        return
    rendered = tiny_chat.processor.apply_chat_template(
        TURNS, tokenize=False, add_generation_prompt=add, continue_final_message=goes_on
    )
    assert found.json()["tokens"] == tiny_chat.processor.tokenizer(rendered)["input_ids"]


def test_tokenize_a_clip(http):
    found = http.post("/tokenize", json={"messages": [{"role": "user", "content": [SOUND]}]}).json()
    without = http.post("/tokenize", json={"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]})
    assert found["count"] > 25 + without.json()["count"]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"instructions": "Be brief."},
        {"tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}]},
        {"previous_response_id": True},
    ],
)
def test_input_tokens_are_those_of_the_response(client, more):
    content = [SOUND, {"type": "input_text", "text": "What is it?"}]
    asked = {"model": "tiny", "input": [{"role": "user", "content": content}], **more}
    if "previous_response_id" in more:
        asked["previous_response_id"] = client.responses.create(model="tiny", input="Hi", max_output_tokens=2).id
    counted = client.responses.input_tokens.count(**asked)
    assert counted.object == "response.input_tokens"
    assert counted.input_tokens == client.responses.create(**asked, max_output_tokens=1).usage.input_tokens > 25


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": TURNS}, "prompt"),
        ("/tokenize", {"prompt": "a", "mdoel": "x"}, "mdoel"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/tokenize", {"prompt": "a", "add_generation_prompt": False}, "add_generation_prompt"),
        ("/tokenize", {"prompt": "a", "continue_final_message": True}, "continue_final_message"),
        (
            "/tokenize",
            {"messages": [*TURNS, {"role": "tool", "content": [{**SOUND, "input_audio": {"data": "AAAA"}}]}]},
            "messages[4].content[0]",
        ),
        ("/v1/responses/input_tokens", {}, "input"),
        ("/v1/responses/input_tokens", {"input": "a", "store": True}, "store"),
        ("/v1/responses/input_tokens", {"input": "a", "previous_response_id": "resp_x"}, "previous_response_id"),
        (
            "/v1/responses/input_tokens",
            {"input": [{"role": "user", "content": [{**SOUND, "input_audio": {"data": "AAAA"}}]}]},
            "input[0].content[0]",
        ),
        (
            "/tokenize",
            {"messages": [{"role": "user", "content": [{**SOUND, "input_audio": {"data": "AAAA"}}]}]},
            "messages[0].content[0]",
        ),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": ["a"]}, "tokens[0]"),
        ("/detokenize", {"tokens": [9999]}, None),
        ("/tokenize", {"prompt": "a", "model": "other"}, "model"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(http, path, body, param):
    found = http.post(path, json=body)
    assert found.status_code in (400, 404) and found.json()["error"]["param"] == param, found.text
