"""/v1/embeddings with OpenAI's client against a tiny checkpoint behind the real engine."""

from __future__ import annotations

import asyncio
import base64
import json

import numpy as np
import pytest

import qwen2_audio as qa
from kit.clip_files import wav_bytes
from kit.live_server import live
from qwen2_audio.api.service import Service
from qwen2_audio.serve.settings import Settings

openai = pytest.importorskip("openai")
SOUND = {"type": "input_audio", "input_audio": {"data": base64.b64encode(wav_bytes()).decode(), "format": "wav"}}


@pytest.fixture(scope="module")
def client(tiny_chat):
    service = Service(tiny_chat.model, tiny_chat.processor, name="tiny")
    with (
        live(service, Settings(grace=1)) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=30) as client,
    ):
        yield client


def test_texts_in_both_encodings(client, tiny_chat):
    texts = ["a dog barks", "rain on a roof"]
    found = client.embeddings.create(model="tiny", input=texts)  # the client asks for base64, and decodes it
    plain = client.embeddings.create(model="tiny", input=texts, encoding_format="float")
    expected = tiny_chat.embed([qa.user(text) for text in texts])
    for answer in (found, plain):
        assert [one.index for one in answer.data] == [0, 1] and answer.object == "list" and answer.model == "tiny"
        np.testing.assert_allclose([one.embedding for one in answer.data], expected, atol=1e-6)
    ids = [tiny_chat.processor.tokenizer(text)["input_ids"] for text in texts]
    assert found.usage.prompt_tokens == found.usage.total_tokens == sum(map(len, ids))
    as_ids = client.embeddings.create(model="tiny", input=ids)
    np.testing.assert_allclose([one.embedding for one in as_ids.data], expected, atol=1e-6)
    one = client.embeddings.create(model="tiny", input=texts[0], dimensions=32)
    np.testing.assert_allclose(one.data[0].embedding, expected[0], atol=1e-6)


def embed(client, **body):
    return client.post("/embeddings", body=body, cast_to=object)


def test_clips_by_messages(client, tiny_chat):
    message = {"role": "user", "content": [SOUND]}
    found = embed(client, messages=[message])
    expected = tiny_chat.embed([wav_bytes()])[0]
    np.testing.assert_allclose(found["data"][0]["embedding"], expected, atol=1e-6)
    assert found["usage"]["prompt_tokens_details"]["audio_tokens"] == 25
    assert found["usage"]["heard"] == [{"seconds": 1.0, "tokens": 25}]
    framed = embed(client, messages=[message], add_generation_prompt=True)
    assert framed["usage"]["prompt_tokens"] > found["usage"]["prompt_tokens"]
    options = {"source": "encoder", "pooling": "none", "use_activation": False}
    states = embed(client, messages=[message], **options)["data"][0]
    expected = tiny_chat.embed([wav_bytes()], source="encoder", pooling="none", normalize=False)[0]
    np.testing.assert_allclose(states["embedding"], expected, atol=1e-5)
    packed = embed(client, messages=[message], encoding_format="base64", **options)["data"][0]
    values = np.frombuffer(base64.b64decode(packed["embedding"]), "<f4").reshape(packed["shape"])
    np.testing.assert_allclose(values, expected, atol=1e-5)


@pytest.mark.parametrize(("encoding", "pooling"), [("float", "last"), ("float", "none"), ("base64", "none")])
def test_the_answer_is_written_off_the_event_loop_a_row_at_a_time(client, monkeypatch, encoding, pooling):
    written = []

    def recorded(value):
        written.append((asyncio._get_running_loop() is not None, len(value) if isinstance(value, list) else 0))
        return json.dumps(value)

    monkeypatch.setattr("qwen2_audio.serve.routes.embeddings._json", recorded)
    found = embed(client, input=["a dog barks", "rain"], pooling=pooling, encoding_format=encoding)
    assert list(found) == ["object", "data", "model", "usage"]
    assert [list(one) for one in found["data"]] == [
        ["object", "index", *(["shape"] if pooling == "none" else []), "embedding"]
    ] * 2
    rows = sum(one["shape"][0] if pooling == "none" else 1 for one in found["data"]) if encoding == "float" else 0
    assert not any(on_loop for on_loop, _ in written)
    assert [length for _, length in written if length] == [32] * rows


def test_an_answer_has_a_limit(client, monkeypatch):
    monkeypatch.setattr("qwen2_audio.serve.routes.embeddings.MOST_NUMBERS", 32 * 40)
    assert len(embed(client, input=["a"] * 40)["data"]) == 40
    with pytest.raises(openai.APIStatusError) as refused:
        embed(client, input=["a dog barks"] * 40, pooling="none")
    assert (refused.value.status_code, refused.value.body["code"]) == (413, "answer_too_large")


@pytest.mark.parametrize(
    "options", [{}, {"source": "encoder"}, {"source": "encoder", "layer": 0}, {"source": "projector"}]
)
def test_what_would_be_too_large_is_not_computed(client, monkeypatch, options):
    body = {"messages": [{"role": "user", "content": [SOUND]}], "pooling": "none", **options}
    positions, width = embed(client, **body)["data"][0]["shape"]
    monkeypatch.setattr("qwen2_audio.serve.routes.embeddings.MOST_NUMBERS", positions * width)
    assert embed(client, **body)["data"][0]["shape"] == [positions, width]
    monkeypatch.setattr("qwen2_audio.serve.routes.embeddings.MOST_NUMBERS", positions * width - 1)
    monkeypatch.setattr("qwen2_audio.engine.prompt_outputs.HiddenStates.add", None)  # where states are taken
    with pytest.raises(openai.APIStatusError) as refused:
        embed(client, **body)
    assert (refused.value.status_code, refused.value.body["code"]) == (413, "answer_too_large")


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({}, "input", "nothing; expected input"),
        ({"input": "a", "messages": [{"role": "user", "content": "b"}]}, "input", "input and messages"),
        ({"input": []}, "input", "0 texts"),
        ({"input": ["a", ""]}, "input", "empty text"),
        *(({"input": value}, "input", "Input should be a text, a list of texts, token ids, or a list of those")
          for value in ([["a"]], ["a", 1], [True], [1.5], [[1], 2], 5)),
        ({"input": [[9999]]}, "input[0]", "holds the id 9999"),
        ({"input": ["a", "a " * 5000]}, "input[1]", "context holds 2048"),
        ({"input": "a", "dimensions": 16}, "dimensions", "dimensions is 16, and the embedding has 32"),
        ({"input": "a", "encoding_format": "bytes"}, "encoding_format", ""),
        ({"input": "a", "layer": 9}, None, "layer is 9"),
        ({"input": "a", "source": "encoder"}, None, "there is no clip"),
        ({"input": "a", "normalize": True}, "normalize", "not a field"),
        ({"input": "a", "truncate_prompt_tokens": 5}, "truncate_prompt_tokens", "not a field"),
        ({"input": "a", "add_generation_prompt": True}, "add_generation_prompt", "belongs to messages"),
        ({"input": "a", "model": "other"}, "model", "no model 'other'"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]", "image_url"),
        (
            {"messages": [{"role": "user", "content": [
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]}]},
            "messages[0].content[0]", "",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(client, body, param, message):
    with pytest.raises(openai.APIStatusError) as refused:
        embed(client, **body)
    assert refused.value.status_code in (400, 404)
    error = refused.value.body
    assert message in error["message"]
    assert param is None or error["param"] == param
