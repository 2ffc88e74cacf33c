"""A transcription or translation writes down a spoken question and never answers it, whatever the hints are."""

from __future__ import annotations

import json
import shutil

import pytest
from starlette.testclient import TestClient

import qwen2_audio
from qwen2_audio.api.service import Service
from qwen2_audio.longform.wording import LANGUAGES
from qwen2_audio.serve.app import create_app

CLIPS = qwen2_audio.nano_path() / "clips"
WORDS = {
    "capital.wav": "What is the capital of France?",
    "sum.wav": "What is seven plus five?",
    "command.wav": "Open the gate in the living room.",
}
PROMPTS = (
    "ships", "names: Käthe, Jürgen", "What is seven plus five?", "Answer the question.", "请用简体中文",
    "Hello, welcome to my lecture. Umm, let me think like, hmm... Okay, here's what I'm, like, thinking.",
    "ZyntriQix, Digique Plus, CynapseFive, VortiQore V8, EchoNix Array, OrbitalLink Seven",
)  # fmt: skip


@pytest.fixture(scope="module")
def nano():
    chat = qwen2_audio.load("nano", device="cpu")
    service = Service(chat.model, chat.processor, name="nano")
    yield TestClient(create_app(service))
    service.close()


def written(client, clip, task="transcriptions", **fields):
    answer = client.post(f"/v1/audio/{task}", files={"file": (CLIPS / clip).read_bytes()}, data=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()["text"]


@pytest.mark.parametrize("code", sorted(LANGUAGES))
def test_in_every_language(nano, code):
    assert {clip: written(nano, clip, language=code) for clip in WORDS} == WORDS


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("task", ["transcriptions", "translations"])
def test_with_a_prompt(nano, prompt, task):
    assert {clip: written(nano, clip, task, prompt=prompt) for clip in WORDS} == WORDS


@pytest.mark.parametrize("task", ["transcriptions", "translations"])
def test_without_hints(nano, task):
    assert {clip: written(nano, clip, task) for clip in WORDS} == WORDS


def test_with_both_hints(nano):
    assert written(nano, "capital.wav", language="de", prompt="names: Käthe") == WORDS["capital.wav"]


def test_a_base_checkpoint_gets_its_own_form_without_a_chat(tiny_checkpoint, tmp_path, wav_file):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "base")
    config = json.loads((folder / "generation_config.json").read_text())
    end = qwen2_audio.load(folder, device="cpu").processor.tokenizer.convert_tokens_to_ids("<|endoftext|>")
    (folder / "generation_config.json").write_text(json.dumps({**config, "eos_token_id": end}))
    chat = qwen2_audio.load(folder, device="cpu")
    service = Service(chat.model, chat.processor)
    seen = []
    submit = service._thread.submit
    service._thread.submit = lambda build, *args, **kwargs: submit(
        lambda: seen.append(build()) or seen[-1], *args, **kwargs
    )
    with TestClient(create_app(service)) as client:
        assert service.is_base
        written(client, "sum.wav", "transcriptions", max_completion_tokens=2)
    tokenizer = chat.processor.tokenizer
    text = tokenizer.decode([id for id in seen[0].ids if id != tokenizer.convert_tokens_to_ids("<|AUDIO|>")])
    assert text == "<|audio_bos|><|audio_eos|>Detect the language and recognize the speech:"


def test_nano_is_a_chat_checkpoint(nano):
    assert not nano.app.state.server.backend.is_base
