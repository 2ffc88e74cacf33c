"""A draft loaded beside a checkpoint: named, checked before anything large is read, and used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import qwen2_audio as qa
from qwen2_audio.api.loading import NUM_SPECULATIVE_TOKENS
from qwen2_audio.engine.settings import EngineSettings
from qwen2_audio.errors import ConfigError, WeightsError
from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration


@pytest.fixture
def sibling(tiny_checkpoint: Path, tmp_path: Path):
    """A copy of the tiny checkpoint with one of its JSON files changed: sibling(file, change) -> folder."""

    def make(file: str, change) -> Path:
        folder = tmp_path / "sibling"
        shutil.copytree(tiny_checkpoint, folder)
        data = json.loads((folder / file).read_text(encoding="utf-8"))
        change(data)
        (folder / file).write_text(json.dumps(data), encoding="utf-8")
        return folder

    return make


def swap(added: dict, one: str, other: str) -> None:
    for token in added.values():
        token["content"] = {one: other, other: one}.get(token["content"], token["content"])


def test_a_draft_is_loaded_noted_and_asked(tiny_checkpoint, clip):
    question, most = [qa.user("What is it?", audio=clip)], qa.SamplingParams(temperature=0, max_tokens=12)
    plain = qa.load(tiny_checkpoint, device="cpu", dtype="float32").chat(question, most)
    chat = qa.load(tiny_checkpoint, device="cpu", dtype="float32", draft=tiny_checkpoint, num_speculative_tokens=3)
    assert chat.settings.num_speculative_tokens == 3 and chat.draft is not chat.model
    assert chat.notes[1].startswith(f"The draft {tiny_checkpoint}: float32 on the CPU, exact")
    answer = chat.chat(question, most)
    assert (answer.text, answer.usage) == (plain.text, plain.usage)
    stats = chat.service().stats()
    assert stats.draft_tokens_proposed == stats.draft_tokens_accepted > 0


def test_a_quantised_folder_is_a_draft(tiny_checkpoint, tmp_path, clip):
    folder = tmp_path / "small"
    shutil.copytree(tiny_checkpoint, folder, ignore=shutil.ignore_patterns("*.safetensors*", "config.json"))
    Qwen2AudioForConditionalGeneration.from_pretrained(tiny_checkpoint, quantize="int8").save_pretrained(folder)
    chat = qa.load(tiny_checkpoint, device="cpu", dtype="float32", draft=folder)
    assert chat.notes[1].startswith(f"The draft {folder}: int8 on cpu, as the checkpoint is stored")
    assert chat.chat([qa.user("What is it?", audio=clip)], qa.SamplingParams(max_tokens=8)).usage.completion_tokens
    assert chat.service().stats().draft_tokens_proposed > 0


def test_without_a_draft_there_is_none(tiny_chat):
    assert (
        tiny_chat.draft is None
        and tiny_chat.settings.num_speculative_tokens
        == NUM_SPECULATIVE_TOKENS
        == EngineSettings().num_speculative_tokens
    )


@pytest.mark.parametrize(
    ("file", "change", "sentence"),
    [
        (
            "tokenizer_config.json",
            lambda data: swap(data["added_tokens_decoder"], "<|endoftext|>", "<|im_start|>"),
            r"The tokenizer of the draft .*sibling has id 321 for '<\|endoftext\|>' and the model's has id 320; a "
            r"draft must be made for the same tokenizer\.",
        ),
        (
            "config.json",
            lambda data: data.update(audio_token_index=7),
            r"The draft has 7 for a position of sound and the model has \d+ for a position of sound; a draft must",
        ),
        (
            "config.json",
            lambda data: data["text_config"].update(vocab_size=400),
            r"The draft has a vocabulary of 400 tokens and the model has a vocabulary of 512 tokens; a draft must be",
        ),
    ],
)
def test_other_tokens_are_refused_before_the_weights_are_read(
    tiny_checkpoint, sibling, monkeypatch, file, change, sentence
):
    other = sibling(file, change)
    monkeypatch.setattr(Qwen2AudioForConditionalGeneration, "from_pretrained", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(ConfigError, match=sentence):
        qa.load(tiny_checkpoint, device="cpu", draft=other)


def test_what_cannot_be_a_draft_is_one_sentence(tiny_checkpoint):
    with pytest.raises(WeightsError, match=r"No folder './nowhere' here"):
        qa.load(tiny_checkpoint, device="cpu", draft="./nowhere")
    with pytest.raises(ConfigError, match="tensor_parallel takes no draft"):
        qa.load(tiny_checkpoint, device="cpu", dtype="float32", draft=tiny_checkpoint, tensor_parallel=True)
    with pytest.raises(ConfigError, match="num_speculative_tokens is -1; expected a number of at least 0"):
        qa.load(tiny_checkpoint, device="cpu", draft=tiny_checkpoint, num_speculative_tokens=-1)
