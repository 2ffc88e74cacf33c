"""Nano's network: its first weights, the saved folder, and the reference on the same folder."""

import json

import numpy as np
import pytest
import torch
from recipes.nano.conversations import user
from recipes.nano.network import fresh_model, nano_config, save_checkpoint, sinusoids

from qwen2_audio.evaluate.nano.examination import Listener


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("nano")
    config = nano_config(tokenizer)
    save_checkpoint(fresh_model(config, 0), config, tokenizer, folder)
    return folder


def clip():
    return (0.1 * np.random.default_rng(0).standard_normal(16_000)).astype(np.float32)


def test_the_same_seed_gives_the_same_weights(tokenizer):
    config = nano_config(tokenizer)
    first, second = fresh_model(config, 1).state_dict(), fresh_model(config, 1).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_positions_are_whispers_sinusoids():
    table = sinusoids(1500, 192)
    assert table.shape == (1500, 192)
    assert table[0, :96].tolist() == [0.0] * 96
    assert table[0, 96:].tolist() == [1.0] * 96
    assert table[7, 0] == pytest.approx(np.sin(7))
    assert table[7, 95] == pytest.approx(np.sin(7e-4), rel=1e-5)  # the slowest: 10000 times slower than the first


def test_the_folder_is_small_and_in_the_official_layout(folder):
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "qwen2_audio"
    assert config["architectures"] == ["Qwen2AudioForConditionalGeneration"]
    assert config["text_config"]["model_type"] == "qwen2"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 16e6


def test_it_answers_and_stops(folder):
    listener = Listener(folder)
    assert listener.chat.dtype == torch.float32
    sound = (clip(), 16_000)
    said = listener.answers([[user(sound, "What is this sound?")], [user(sound)], [user("Hello.")]])
    assert len(said) == 3 and all(isinstance(one, str) for one in said)
    assert said[1] == listener.answers([[user(sound)]])[0]


def test_the_reference_gives_the_same_tokens(folder):
    transformers = pytest.importorskip("transformers")
    listener = Listener(folder)
    reference = transformers.Qwen2AudioForConditionalGeneration.from_pretrained(folder)
    prompt = listener.chat.processor.apply_chat_template(
        [user(0, "What is it?")], add_generation_prompt=True, tokenize=False
    )
    inputs = listener.chat.processor(text=prompt, audio=[clip()], return_tensors="pt")
    ours = listener.chat.model.generate(**inputs, max_new_tokens=12)
    assert torch.equal(ours, reference.generate(**inputs, max_new_tokens=12))
