"""`model: "BASE:ADAPTER"` in every body, over HTTP, with the tiny checkpoint and with a backend that fails."""

from __future__ import annotations

import json

import httpx2 as httpx
import pytest

import qwen2_audio as qa
from kit.adapters import EVERYWHERE, write_adapter
from kit.clip_files import wav_bytes
from kit.fake_backend import FakeBackend
from kit.live_server import live
from qwen2_audio.api.service import service_of
from qwen2_audio.errors import BusyError, WeightsError
from qwen2_audio.serve.settings import Settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_checkpoint):
    folder = tmp_path_factory.mktemp("loras")
    model = qa.load(tiny_checkpoint, device="cpu", dtype="float32").model
    for seed, name in enumerate(("dogs", "cats")):
        write_adapter(folder / name, model, seed, targets=EVERYWHERE, size=2.0)
    (folder / "broken").mkdir()
    (folder / "broken" / "adapter_config.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def chat(tiny_checkpoint, folder):
    return qa.load(tiny_checkpoint, device="cpu", dtype="float32", lora_folder=folder)


@pytest.fixture(scope="module")
def client(chat):
    served = live(service_of(chat, "tiny"), Settings(names=("tiny", "tiny:2")))
    with served as server, httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def asked(client, model, **more):
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Hello?"}],
        "temperature": 0,
        "max_tokens": 12,
        **more,
    }
    return client.post("/v1/chat/completions", json=body)


def said(reply):
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]["message"]["content"]


def test_each_request_gets_its_adapter(client, chat):
    params = qa.SamplingParams(max_tokens=12, temperature=0)
    expected = {name: chat.chat([qa.user("Hello?")], params, adapter=name).text for name in (None, "dogs", "cats")}
    assert len(set(expected.values())) == 3
    for model, name in (
        ("tiny", None),
        ("tiny:dogs", "dogs"),
        ("tiny:2:cats", "cats"),
        ("tiny:2", None),
        ("cats", "cats"),
    ):
        assert said(asked(client, model)) == expected[name]
    assert asked(client, "tiny:dogs").json()["model"] == "tiny:dogs"
    assert asked(client, "tiny:2").json()["model"] == "tiny"


def test_models_lists_them_and_a_new_one_is_found(client, chat, folder, tiny_checkpoint):
    listed = {model["id"]: model["parent"] for model in client.get("/v1/models").json()["data"]}
    assert listed == {"tiny": None, "tiny:2": None, "tiny:broken": "tiny", "tiny:cats": "tiny", "tiny:dogs": "tiny"}
    assert client.get("/v1/models/tiny:dogs").json()["id"] == "tiny:dogs"
    (folder / "later").symlink_to(folder / "dogs")
    try:
        assert said(asked(client, "tiny:later")) == said(asked(client, "tiny:dogs"))
    finally:
        (folder / "later").unlink()
    assert asked(client, "tiny:later").status_code == 404


def test_a_folder_that_has_gone_is_not_the_client_s_fault(client, folder, caplog):
    away = folder.rename(folder.with_name("away"))
    try:
        listed = client.get("/v1/models")
        assert [model["id"] for model in listed.json()["data"]] == ["tiny", "tiny:2"]
        for name in ("tiny:dogs", "dogs"):
            reply = asked(client, name)
            assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
            assert str(folder) not in reply.text
        assert str(folder) in caplog.text, "the operator is told"
        said(asked(client, "tiny"))
    finally:
        away.rename(folder)


@pytest.mark.parametrize(
    "name", ["tiny:birds", "tiny:../dogs", "tiny:dogs/../cats", "tiny:", "../dogs", "birds", "other:dogs"]
)
def test_an_unknown_one_is_404_with_the_known_names(client, name):
    reply = asked(client, name)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert "dogs" in error["message"] and "cats" in error["message"]
    assert client.get(f"/v1/models/{name.replace('/', '%2F')}").status_code == 404


def test_a_broken_one_is_400_with_its_file(client, folder):
    reply = asked(client, "tiny:broken")
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_adapter")
    assert "broken/adapter_" in reply.text and str(folder) not in reply.text


def test_every_path_takes_them(client, chat):
    words = {"labels": "words"}
    bodies = {
        "/v1/responses": {"input": "Hello?", "temperature": 0, "max_output_tokens": 4},
        "/v1/embeddings": {"input": "Hello?"},
        "/v1/decisions": {"input": "Hello?", "questions": [{"type": "predicate", "instructions": "Is it?"}], **words},
        "/v1/systemone": {"state": "x", "questions": {"q": {"type": "noul", "instructions": "Is it?"}}, **words},
        "/tokenize": {"prompt": "Hello?"},
        "/detokenize": {"tokens": [1, 2]},
    }  # fmt: skip
    for path, body in bodies.items():
        replies = [client.post(path, json={**body, "model": model}) for model in ("tiny", "tiny:dogs", "tiny:birds")]
        assert [reply.status_code for reply in replies] == [200, 200, 404], (path, replies[1].text)
        if "token" not in path:
            assert [reply.json()["model"] for reply in replies[:2]] == ["tiny", "tiny:dogs"]
            plain, adapted = (json.dumps({**reply.json(), "model": ""}) for reply in replies[:2])
            assert plain != adapted
    texts = {}
    for model in ("tiny", "tiny:dogs", "tiny:birds"):
        form = {"model": model, "max_completion_tokens": "8"}
        reply = client.post("/v1/audio/transcriptions", data=form, files={"file": ("a.wav", wav_bytes(), "audio/wav")})
        texts[model] = reply.json().get("text"), reply.status_code
    assert texts["tiny"][1] == texts["tiny:dogs"][1] == 200 and texts["tiny:birds"][1] == 404
    assert texts["tiny"] != texts["tiny:dogs"]


def test_a_backend_that_fails_is_told_apart():
    backend = FakeBackend()
    backend.loras = {"busy": BusyError("all are in use"), "bad": WeightsError("bad/adapter_model.safetensors is cut")}
    with live(backend, Settings()) as server, httpx.Client(base_url=server.url, timeout=20) as client:
        reply = asked(client, "fake:busy")
        assert reply.status_code == 429 and reply.headers["retry-after"] and "all are in use" in reply.text
        assert asked(client, "bad").status_code == 400
