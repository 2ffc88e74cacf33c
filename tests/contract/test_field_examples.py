"""docs/http.md has a value of each field of its JSON paths, which a loaded checkpoint takes; others are refused."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import httpx2 as httpx
import pytest

from kit.clip_files import wav_bytes
from kit.live_server import live
from qwen2_audio.api.service import Service
from qwen2_audio.serve.protocol import ChatRequest
from qwen2_audio.serve.routes.decisions import DecisionsRequest, SystemOneRequest
from qwen2_audio.serve.routes.embeddings import EmbeddingRequest
from qwen2_audio.serve.routes.responses import InputTokensRequest, ResponsesRequest
from qwen2_audio.serve.routes.tokenize import TokenizeRequest
from qwen2_audio.serve.settings import Settings

pytest.importorskip("llguidance")
PAGE = (Path(__file__).parents[2] / "docs" / "http.md").read_text(encoding="utf-8")
EXAMPLES = json.loads(re.findall(r"^```json fields\n(.*?)^```", PAGE, re.S | re.M)[0])
MODELS = {
    "/v1/chat/completions": ChatRequest, "/v1/responses": ResponsesRequest, "/v1/embeddings": EmbeddingRequest,
    "/v1/decisions": DecisionsRequest, "/v1/systemone": SystemOneRequest, "/tokenize": TokenizeRequest,
    "/v1/responses/input_tokens": InputTokensRequest,
}  # fmt: skip
# What is sent with every field of a path, and with some of them beside or in place of that.
BASE = {
    "/v1/chat/completions": ("messages", "max_completion_tokens"), "/v1/responses": ("input", "max_output_tokens"),
    "/v1/embeddings": ("input",), "/v1/decisions": ("input", "questions"), "/v1/systemone": ("audio", "questions"),
    "/tokenize": ("prompt",), "/v1/responses/input_tokens": ("input",),
}  # fmt: skip
BESIDE = {
    "top_logprobs": ("logprobs",), "stream_options": ("stream",), "tool_choice": ("tools", "parallel_tool_calls"),
    "parallel_tool_calls": ("tools",), "continue_final_message": ("add_generation_prompt",),
    "echo": ("continue_final_message", "add_generation_prompt"),
}  # fmt: skip
OF_MESSAGES = {
    "/v1/embeddings": ("messages", "source", "layer", "pooling", "add_generation_prompt"),
    "/tokenize": ("messages", "add_generation_prompt", "continue_final_message"),
}
# Of these the base has another spelling, which would say the same thing twice.
IN_PLACE_OF = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_output_tokens"}


@pytest.fixture(scope="module")
def http(tiny_chat):
    service = Service(tiny_chat.model, tiny_chat.processor, name="nano")
    with live(service, Settings(grace=1)) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def examples(tiny_chat, http):
    """With a clip, this checkpoint's width, and the id of a response that is stored."""
    text = json.dumps(EXAMPLES).replace('"CLIP"', json.dumps(base64.b64encode(wav_bytes()).decode()))
    made = json.loads(text)
    made["/v1/embeddings"]["dimensions"] = tiny_chat.model.config.text_config.hidden_size
    stored = http.post("/v1/responses", json={"input": "Hi", "max_output_tokens": 2})
    for path in ("/v1/responses", "/v1/responses/input_tokens"):
        made[path]["previous_response_id"] = stored.json()["id"]
    return made


def body_of(path, field, values):
    names = ["messages"] if field in OF_MESSAGES.get(path, ()) else list(BASE[path])
    names += [name for name in BESIDE.get(field, ()) if name in values]
    names = [name for name in names if name != IN_PLACE_OF.get(field)]
    return {name: values[name] for name in (*names, field)}


@pytest.mark.parametrize("path", MODELS)
def test_each_field_has_an_example(path):
    assert sorted(EXAMPLES[path]) == sorted(MODELS[path].model_fields)


@pytest.mark.parametrize(("path", "field"), [(path, field) for path, values in EXAMPLES.items() for field in values])
def test_each_example_is_taken(http, examples, path, field):
    body = body_of(path, field, examples[path])
    found = http.post(path, json=body)
    assert found.status_code == 200, f"{body}: {found.text}"
    if body.get("stream"):
        assert not re.search(r'"error": ?\{', found.text), found.text
    misspelt = http.post(path, json={**body, f"{field}_": body[field]})
    assert misspelt.status_code == 400 and misspelt.json()["error"]["param"] == f"{field}_"
