import json

import pytest
import torch

import qwen2_audio as qa
from qwen2_audio.checkpoint import memory


def test_a_quantised_folder_is_a_model(cli, tiny_checkpoint, tmp_path, wav_file):
    status, out, err = cli("quantize", tiny_checkpoint, "--to", "q")
    assert (status, out) == (0, "q\n")
    lines = err.splitlines()
    assert lines[0].split() == ["part", "stored", "as", "parameters", "bytes", "relative", "error"]
    assert any(line.startswith("language model") and "int4, groups of 64" in line for line in lines)
    assert lines[-1].split()[:3] == ["all", "133", "k"]
    status, out, err = cli("ask", wav_file("dog.wav"), "-p", "What?", "--model", "q", "--max-tokens", "3")
    assert status == 0
    assert out.strip()
    assert "int4 on cpu, as the checkpoint is stored" in err


def test_as_json(cli, tiny_checkpoint):
    status, out, _ = cli("quantize", tiny_checkpoint, "--to", "q", "--scheme", "int8", "--group", "64", "--json")
    rows = {row["part"]: row for row in json.loads(out)}
    assert status == 0
    assert rows["language model"]["stored_as"] == "int8, groups of 64"
    assert 0.003 < rows["language model"]["relative_error"] < 0.008
    assert sum(row["parameters"] for row in rows.values()) == 133_056


def test_calibrated_on_clips_and_conversations(cli, tiny_checkpoint, tmp_path, wav_file):
    wav = wav_file("dog.wav")
    row = {
        "messages": [
            {"role": "user", "content": [{"type": "audio", "audio": str(wav)}, {"type": "text", "text": "What?"}]},
            {"role": "assistant", "content": "It is a dog."},
        ]
    }
    (tmp_path / "talk.jsonl").write_text(json.dumps(row) + "\n")
    options = ("--calibrate", wav, "--calibrate", "talk.jsonl")
    status, out, err = cli("quantize", tiny_checkpoint, "--to", "q", *options)
    assert (status, out) == (0, "q\n")
    assert "Calibrating on 2 conversations of " in err
    config = json.loads((tmp_path / "q" / "config.json").read_text())
    assert config["quantization_config"]["calibrated_on"] == ["dog.wav", "talk.jsonl"]
    plain = qa.Qwen2AudioForConditionalGeneration.from_pretrained(tiny_checkpoint)
    model = qa.Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path / "q")
    name = "language_model.model.layers.0.input_layernorm.weight"
    assert not torch.equal(plain.get_parameter(name), model.get_parameter(name))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--scheme", "int2"), "quantize is 'int2'; expected None, 'int4' or 'int8'."),
        (("--group", "48"), "group is 48; expected 32 or 64 inputs that share a scale."),
        (("--calibrate", "nope.wav"), "No such file: 'nope.wav'"),
        (("--calibrate", "nope.jsonl"), "The data file nope.jsonl cannot be read"),
    ],
)
def test_mistakes_are_a_sentence_and_leave_nothing_behind(cli, tiny_checkpoint, tmp_path, options, sentence):
    status, out, err = cli("quantize", tiny_checkpoint, "--to", "q", *options)
    assert (status, out) == (2, "")
    assert sentence in err
    assert list(tmp_path.iterdir()) == []


def test_calibrating_needs_room_for_the_model_in_float32(cli, tiny_checkpoint, tmp_path, wav_file, monkeypatch):
    wav = wav_file("dog.wav")
    monkeypatch.setattr(memory, "available_bytes", lambda: 500_000)
    status, _, err = cli("quantize", tiny_checkpoint, "--to", "q", "--calibrate", wav)
    assert status == 2
    assert (
        "Calibrating runs the model in float32, which takes 532 kB of memory, and 500 kB are available; free memory, "
        "or use a larger machine." in err
    )
    assert [path.name for path in tmp_path.iterdir()] == ["dog.wav"]
