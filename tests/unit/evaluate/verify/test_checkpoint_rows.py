"""Every fault of a checkpoint's files, and of the front end, shows in its row and in no other."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import qwen2_audio as qa
from qwen2_audio.audio import mel
from qwen2_audio.checkpoint.config import Qwen2AudioConfig
from qwen2_audio.evaluate.verify import checkpoint_files, goldens
from qwen2_audio.evaluate.verify.checkpoint_files import Files, checkpoint_rows


def bad(folder):
    return {row.check: row.note for row in checkpoint_rows(Files.find(folder)) if row.state == "OUT OF BOUNDS"}


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(qa.nano_path(), tmp_path / "nano", ignore=shutil.ignore_patterns("clips"))
    return tmp_path / "nano"


@pytest.fixture
def official(folder, monkeypatch):
    """nano, whose values are taken for the official ones."""
    config = Qwen2AudioConfig.from_pretrained(folder)
    parts = {"AUDIO_CONFIG": config.audio_config, "TEXT_CONFIG": config.text_config}
    for name, part in parts.items():
        monkeypatch.setattr(goldens, name, {key: getattr(part, key) for key in getattr(goldens, name)})
    tensors = load_file(folder / "model.safetensors")
    tokenizer = qa.Qwen2AudioProcessor.from_pretrained(folder).tokenizer
    values = {
        "AUDIO_TOKEN_INDEX": config.audio_token_index, "TENSORS": len(tensors),
        "PARAMETERS": sum(t.numel() for t in tensors.values()),
        "CONTROL_TOKENS": {token: tokenizer.convert_tokens_to_ids(token) for token in goldens.CONTROL_TOKENS},
        "PROMPTS": tuple((text, tokenizer.encode(text)) for text, _ in goldens.PROMPTS),
        "TOKENS": tuple((text, [tokenizer.decode([t]) for t in tokenizer.encode(text)]) for text, _ in goldens.TOKENS),
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setattr(goldens, name, value)
    assert not [row for row in checkpoint_rows(Files.find(folder)) if row.state != "ok"]
    return folder


def change_json(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def change_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_nano_is_whole_and_says_what_is_not_its_own(folder):
    rows = list(checkpoint_rows(Files.find(folder)))
    assert not [row for row in rows if row.state == "OUT OF BOUNDS"]
    missing = [row for row in rows if row.state == "not here"]
    assert len(missing) == 4
    assert {row.note for row in missing} == {"not a checkpoint with the official vocabulary"}


def test_a_key_of_the_config(official):
    change_json(official / "config.json", lambda config: config["text_config"].update(rms_norm_eps=1e-6))
    assert bad(official) == {
        "config.json: keys that differ from the official": "text_config.rms_norm_eps is 1e-06, official 1e-05"
    }


def test_the_official_config_is_the_default():
    config = Qwen2AudioConfig(text_config={"vocab_size": 156032, "intermediate_size": 11008, "rms_norm_eps": 1e-5,
                                           "max_position_embeddings": 8192, "rope_theta": 10000})  # fmt: skip
    files = Files("Qwen/Qwen2-Audio-7B", qa.nano_path(), config)
    assert files.official
    assert checkpoint_files._config(files) == (0, "")
    expected = checkpoint_files._expected(files)
    assert len(expected) == goldens.TENSORS
    assert sum(tensor.numel() for tensor in expected.values()) == goldens.PARAMETERS


NAME = "language_model.model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda tensors: tensors.pop(NAME), "1 missing: language_model.model.layers.1.mlp.up_proj.weight"),
        (lambda tensors: tensors.update(more=torch.zeros(3)), "1 unexpected: more"),
        (lambda tensors: tensors.update({NAME: torch.zeros(3, 5)}), "1 of another shape"),
    ],
)
def test_a_tensor(official, change, sentence):
    change_tensors(official, change)
    found = bad(official)
    assert sentence in found["tensors: missing, unexpected, of another shape"]
    assert "tensors: other than the official number" in found


def test_a_value_that_is_no_number(folder):
    change_tensors(folder, lambda tensors: tensors[NAME][3, 5].fill_(float("nan")))
    assert bad(folder) == {"tensors: with a value that is no finite number": NAME}


def test_a_head_that_is_the_embedding(official):
    change_tensors(
        official,
        lambda tensors: tensors.update(
            {"language_model.lm_head.weight": tensors["language_model.model.embed_tokens.weight"].clone()}
        ),
    )
    assert list(bad(official)) == ["lm_head: the same as the embedding"]


def test_a_placeholder_that_is_another_token(folder):
    change_json(folder / "config.json", lambda config: config.update(audio_token_index=1540))
    assert bad(folder) == {"tokenizer: ids of the control tokens": "<|AUDIO|> is [1539], config.json says 1540"}


def test_control_tokens_with_other_ids(official, monkeypatch):
    monkeypatch.setitem(goldens.CONTROL_TOKENS, "<|im_end|>", 7)
    assert "<|im_end|> is [1538], expected [7]" in bad(official)["tokenizer: ids of the control tokens"]


def test_another_vocabulary(official):
    def swap(config):
        vocabulary = config["model"]["vocab"]
        vocabulary["s"], vocabulary["t"] = vocabulary["t"], vocabulary["s"]

    change_json(official / "tokenizer.json", swap)
    assert list(bad(official)) == ["tokenizer: ids of documented prompts"]


def test_a_tokenizer_that_loses_text(folder, monkeypatch):
    decode = qa.Qwen2AudioProcessor.from_pretrained(folder).tokenizer.__class__.decode
    monkeypatch.setattr(
        "qwen2_audio.text.tokenizer.Tokenizer.decode", lambda *a, **k: decode(*a, **k).replace("é", "e")
    )
    assert "'Ça va — naïve café' came back as" in bad(folder)["tokenizer: texts that do not come back"]


def test_a_foreign_template(folder):
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").write_text(template.replace("Audio ", "Sound "))
    assert list(bad(folder)) == ["chat template: not the official one"]


def test_settings_of_another_front_end(folder):
    change_json(folder / "preprocessor_config.json", lambda config: config.update(hop_length=80))
    assert "sets hop_length to 80" in bad(folder)["tokenizer, front end: read"]


@pytest.mark.parametrize(
    ("name", "factor", "rows"),
    [
        ("window", 1.001, {"front end: a sine of 440 Hz", "front end: a ramp"}),
        ("mel_filters", 1.01, {"front end: mel filters", "front end: a sine of 440 Hz"}),
    ],
)
def test_the_front_end(folder, monkeypatch, name, factor, rows):
    function = getattr(mel, name)

    def wrong(*arguments):
        values = function(*arguments)
        column = np.linspace(1, factor, len(values)).reshape(-1, *[1] * (values.ndim - 1))
        return (values * column).astype(np.float32)

    monkeypatch.setattr(mel, name, wrong)
    assert rows <= bad(folder).keys()


def test_silence_and_lengths(folder, monkeypatch):
    monkeypatch.setattr(mel, "FLOOR", 1e-9)
    monkeypatch.setattr(mel, "num_audio_tokens", lambda frames: frames // 4 + 1)
    assert {"front end: silence", "front end: frames and tokens of a clip's length"} <= bad(folder).keys()
