"""Chat completions, asked by OpenAI's own client over a real socket; every body is read by the client's own types."""

from __future__ import annotations

import asyncio
import base64
import functools
import http.server
import threading

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from kit.clip_files import encoded, wav_bytes
from qwen2_audio.engine.structured import tool_calls
from qwen2_audio.types import SamplingParams


def spoken(data: bytes, text: str | None = None, form: str = "wav"):
    parts = [{"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": form}}]
    return [{"role": "user", "content": parts + ([{"type": "text", "text": text}] if text else [])}]


def user(text: str):
    return [{"role": "user", "content": text}]


def test_a_whole_answer_has_every_field_the_client_knows(client, wav):
    raw = client.chat.completions.with_raw_response.create(model="fake", messages=spoken(wav))
    answer = ChatCompletion.model_validate_json(raw.content, strict=True)
    assert answer.choices[0].message.content == "I heard 1 s"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.id.startswith("chatcmpl-") and answer.object == "chat.completion" and answer.model == "fake"
    usage = answer.usage
    assert usage.prompt_tokens_details.audio_tokens == 25 and usage.prompt_tokens_details.cached_tokens == 3
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.model_dump()["heard"] == [{"seconds": 1.0, "tokens": 25}]
    assert usage.prompt_tokens_details.model_dump()["audio_seconds"] == 1.0
    assert raw.headers["x-request-id"].startswith("req_")


def test_a_stream_says_the_same_and_ends_in_usage(client):
    complete = client.chat.completions.create(model="fake", messages=user("say one two  three"))
    stream = client.chat.completions.create(
        model="fake", messages=user("say one two  three"), stream=True, stream_options={"include_usage": True}
    )
    chunks = [ChatCompletionChunk.model_validate(chunk.model_dump(), strict=True) for chunk in stream]
    assert len({chunk.id for chunk in chunks}) == len({chunk.created for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[0].choices[0].delta.content == ""
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert text == complete.choices[0].message.content == "one two  three"
    assert [c.choices[0].finish_reason for c in chunks[:-1]] == [None] * (len(chunks) - 2) + ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.model_dump() == complete.usage.model_dump()
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_without_include_usage_no_chunk_has_a_usage(client):
    stream = client.chat.completions.create(model="fake", messages=user("say hi"), stream=True)
    assert all("usage" not in chunk.model_dump(exclude_unset=True) for chunk in stream)


def test_the_stream_helper_of_the_client(client):
    with client.chat.completions.stream(model="fake", messages=user("say one two")) as stream:
        done = [event for event in stream if event.type == "content.done"]
    assert done[0].content == "one two"
    assert stream.get_final_completion().choices[0].message.content == "one two"


def test_several_answers_stream_side_by_side(client):
    complete = client.chat.completions.create(model="fake", messages=user("say a b"), n=3)
    assert [choice.index for choice in complete.choices] == [0, 1, 2]
    assert complete.usage.completion_tokens == 6
    texts = ["", "", ""]
    ends = []
    for chunk in client.chat.completions.create(model="fake", messages=user("say a b"), n=3, stream=True):
        choice = chunk.choices[0]
        texts[choice.index] += choice.delta.content or ""
        ends += [choice.index] if choice.finish_reason else []
    assert texts == ["a b"] * 3 and sorted(ends) == [0, 1, 2]


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs(client, stream):
    options = dict(model="fake", messages=user("say one two"), logprobs=True, top_logprobs=2)
    if stream:
        chunks = client.chat.completions.create(**options, stream=True)
        tokens = [t for c in chunks if c.choices[0].logprobs for t in c.choices[0].logprobs.content]
    else:
        tokens = client.chat.completions.create(**options).choices[0].logprobs.content
    assert [token.token for token in tokens] == ["one", " two"]
    assert tokens[0].logprob == -0.25 and bytes(tokens[1].bytes) == b" two"
    assert [top.logprob for top in tokens[0].top_logprobs] == [-1.0, -2.0]


def test_every_sampling_field_reaches_the_model(client, backend):
    client.chat.completions.create(
        model="fake", messages=user("say hi"), temperature=0.5, top_p=0.9, n=2, stop=["x", "y"], seed=7,
        max_completion_tokens=9, frequency_penalty=0.1, presence_penalty=-0.2, logit_bias={"5": -100, "6": 1.5},
        logprobs=True, top_logprobs=3, user="me", metadata={"a": "b"},
        extra_body={"top_k": 4, "min_p": 0.1, "repetition_penalty": 1.1, "min_tokens": 2, "priority": 3},
    )  # fmt: skip
    _, params, timeout, priority = backend.seen[-1]
    assert params == SamplingParams(
        max_tokens=9, min_tokens=2, temperature=0.5, top_p=0.9, top_k=4, min_p=0.1, repetition_penalty=1.1,
        frequency_penalty=0.1, presence_penalty=-0.2, logit_bias={5: -100.0, 6: 1.5}, seed=7, stop=("x", "y"),
        logprobs=3, n=2,
    )  # fmt: skip
    assert priority == 3 and 0 < timeout <= 30


def test_what_is_left_out_is_left_to_the_checkpoint(client, backend):
    client.chat.completions.create(model="fake", messages=user("say hi"))
    assert backend.seen[-1][1] == SamplingParams()


def test_length_and_stop_end_an_answer(client):
    cut = client.chat.completions.create(model="fake", messages=user("say one two three"), max_tokens=2)
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == ("one two", "length")
    stopped = client.chat.completions.create(model="fake", messages=user("say one two three"), stop=" th")
    assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == ("one two", "stop")


@pytest.mark.parametrize(
    ("kind", "codec", "form"),
    [("wav", "pcm_s16le", "wav"), ("mp3", "libmp3lame", "mp3"), ("flac", "flac", "flac"),
     ("ogg", "libopus", "ogg"), ("webm", "libopus", "webm"), ("mp4", "aac", "m4a")],
)  # fmt: skip
def test_sounds_in_any_container(client, kind, codec, form):
    rate = 48_000 if codec == "libopus" else 16_000
    answer = client.chat.completions.create(model="fake", messages=spoken(encoded(kind, codec, rate=rate), form=form))
    assert answer.usage.model_dump()["heard"][0]["seconds"] == pytest.approx(1, abs=0.15)


# -- clips that are named, not sent


@pytest.fixture(scope="module")
def web(folder):
    """A web server on this machine, which redirects /again to itself."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            if self.path in ("/again", "/away"):
                self.send_response(302)
                self.send_header("Location", "/dog.wav" if self.path == "/again" else "http://10.0.0.1/dog.wav")
                self.end_headers()
                return
            super().do_GET()

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_every_way_to_name_a_clip(client, web, folder, wav):
    data = f"data:audio/wav;base64,{base64.b64encode(wav).decode()}"
    urls = [f"{web}/dog.wav", f"{web}/again", data, f"file://{folder}/dog.wav"]
    parts = [{"type": "audio_url", "audio_url": {"url": url}} for url in urls]
    parts += [
        {"audio_url": urls[0]}, {"audio_url": {"url": urls[0]}}, {"type": "audio", "audio_url": urls[0]},
        {"type": "audio", "audio": data}, {"type": "audio_url", "audio_url": {"url": urls[0]}, "uuid": "mine"},
    ]  # fmt: skip
    answer = client.chat.completions.create(model="fake", messages=[{"role": "user", "content": parts}])
    assert answer.usage.model_dump()["heard"] == [{"seconds": 1.0, "tokens": 25}] * len(parts)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://localhost:1/dog.wav", "not on the public internet"),
        ("http://169.254.169.254/latest/meta-data", "not on the public internet"),
        ("http://[::ffff:127.0.0.1]/x", "not on the public internet"),
        ("http://2130706433/x", "not on the public internet"),
        ("ftp://example.org/dog.wav", "expected an http"),
        ("/etc/passwd", "expected an http"),
        ("file:///etc/passwd", "nowhere else"),
        ("http://user:pass@127.0.0.1/x", "user name"),
        ("http://127.0.0.1:1/x", "does not answer"),
    ],
)
def test_where_clips_are_not_fetched_from(client, url, words):
    parts = [{"type": "text", "text": "hi"}, {"type": "audio_url", "audio_url": {"url": url}}]
    with pytest.raises(openai.BadRequestError, match=words) as refused:
        client.chat.completions.create(model="fake", messages=[{"role": "user", "content": parts}])
    assert refused.value.code == "invalid_audio_url"
    assert refused.value.param == "messages[0].content[1].audio_url.url"


@pytest.mark.parametrize(
    ("path", "words"), [("/away", "not on the public"), ("/no.wav", "HTTP 404"), ("/", "text|page")]
)
def test_a_redirect_is_checked_as_the_first_address_was(client, web, path, words):
    parts = [{"type": "audio_url", "audio_url": {"url": web + path}}]
    with pytest.raises(openai.BadRequestError, match=words):
        client.chat.completions.create(model="fake", messages=[{"role": "user", "content": parts}])


# -- refusals


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"tools": [{"type": "function"}]}, "tools[0].function", "missing_required_parameter"),
        ({"modalities": ["text", "audio"]}, "modalities", "unsupported_value"),
        ({"audio": {"voice": "alloy", "format": "wav"}}, "audio", "unknown_parameter"),
        ({"response_format": {"type": "grammar"}}, "response_format.type", "invalid_value"),
        ({"store": True}, "store", "unsupported_value"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"temperature": "hot"}, "temperature", "invalid_value"),
        ({"n": 1000}, "n", "invalid_value"),
        ({"stop": [""]}, "stop", "invalid_value"),
        ({"top_logprobs": 3}, "top_logprobs", "invalid_value"),
        ({"logit_bias": {"dog": 1}}, "logit_bias", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"extra_body": {"guided_json": {}}}, "guided_json", "unknown_parameter"),
        ({"extra_body": {"tempreature": 1}}, "tempreature", "unknown_parameter"),
        ({"extra_body": {"ignore_eos": True}}, "ignore_eos", "unsupported_value"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(client, fields, param, code):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="fake", messages=user("say hi"), **fields)
    assert (refused.value.param, refused.value.code) == (param, code)
    assert refused.value.type == "invalid_request_error"


def test_a_client_that_writes_out_its_defaults_is_served(client):
    client.chat.completions.create(
        model="fake", messages=user("say hi"), tools=[], modalities=["text"], response_format={"type": "text"},
        store=False, parallel_tool_calls=True, service_tier="auto", stream_options=None,
    )  # fmt: skip


def test_an_earlier_answer_goes_back_as_the_client_has_it(client, backend):
    first = client.chat.completions.create(model="fake", messages=user("say hi"))
    earlier = first.choices[0].message.model_dump()
    client.chat.completions.create(model="fake", messages=[*user("say hi"), earlier, *user("say again")])
    assert [m["role"] for m in backend.seen[-1][0]] == ["user", "assistant", "user"]


@pytest.mark.parametrize("stream", [False, True])
def test_an_unreadable_clip_is_a_400_streamed_or_not(client, stream):
    with pytest.raises(openai.BadRequestError, match=r"could not be decoded|not a sound") as refused:
        client.chat.completions.create(model="fake", messages=spoken(b"\x00not a sound" * 9), stream=stream)
    assert refused.value.code == "invalid_audio"


def test_a_clip_of_more_than_30_seconds_is_refused_with_its_length(client):
    with pytest.raises(openai.BadRequestError, match=r"31 s.*nothing is cut off"):
        client.chat.completions.create(model="fake", messages=spoken(wav_bytes(31, 8000)))


def test_too_many_clips(client, wav):
    with pytest.raises(openai.BadRequestError, match="more than 64 clips") as refused:
        client.chat.completions.create(model="fake", messages=spoken(wav)[:1] * 65)
    assert refused.value.code == "too_many_clips"
    assert client.chat.completions.create(model="fake", messages=user("say alive")).choices  # and nothing is broken


def test_errors_of_the_model(client):
    with pytest.raises(openai.BadRequestError) as full:
        client.chat.completions.create(model="fake", messages=user("say " + "x" * 30_000))
    assert full.value.code == "context_length_exceeded"
    with pytest.raises(openai.InternalServerError) as fault:
        client.chat.completions.create(model="fake", messages=user("fault"))
    assert "secret" not in str(fault.value) and fault.value.status_code == 500


def test_a_fault_in_the_middle_of_a_stream_is_its_last_event(client):
    texts: list[str] = []
    chunks = client.chat.completions.create(model="fake", messages=user("break"), stream=True)
    with pytest.raises(openai.APIError, match="failed on this request"):
        texts.extend(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert "".join(texts) == "two words"


def test_models_and_keys(client, server):
    assert [model.id for model in client.models.list()] == ["fake"]
    assert client.models.retrieve("fake").owned_by == "qwen2-audio"
    with pytest.raises(openai.NotFoundError) as unknown:
        client.models.retrieve("gpt-5")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError, match="expected 'fake'"):
        client.chat.completions.create(model="gpt-5", messages=user("say hi"))
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0) as other,
        pytest.raises(openai.AuthenticationError) as stranger,
    ):
        other.models.list()
    assert stranger.value.code == "invalid_api_key"


@pytest.mark.anyio
async def test_the_asynchronous_client(server, client):
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=client.api_key, max_retries=0) as other:
        stream = await other.chat.completions.create(model="fake", messages=user("say one two"), stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "one two"


@pytest.fixture
def anyio_backend():
    return "asyncio"


def test_schemas_of_tools_are_compiled_off_the_event_loop(client, monkeypatch):
    on_loop, held = [], tool_calls.as_can_be_held

    def recorded(tool):
        on_loop.append(asyncio._get_running_loop() is not None)
        return held(tool)

    monkeypatch.setattr(tool_calls, "as_can_be_held", recorded)
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"type": "string"}}}}}
    client.chat.completions.create(model="fake", messages=user("say hi"), tools=[tool])
    assert on_loop == [False]
