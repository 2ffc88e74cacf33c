"""A checkpoint on disk to a quantised one on disk."""

import json
import re
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from qwen2_audio import Qwen2AudioForConditionalGeneration
from qwen2_audio.checkpoint import memory, weights
from qwen2_audio.errors import CapacityError, ConfigError, WeightsError
from qwen2_audio.quantize import convert as converting
from qwen2_audio.quantize.calibrate import Calibration
from qwen2_audio.quantize.checkpoint import tensors_of
from qwen2_audio.quantize.convert import Job, convert

load = Qwen2AudioForConditionalGeneration.from_pretrained


def refusal(kind, job: Job) -> str:
    """The sentence; and nothing is left behind."""
    before = sorted(job.target.parent.rglob("*"))
    with pytest.raises(kind) as caught:
        convert(job)
    assert "\n" not in str(caught.value)
    assert sorted(job.target.parent.rglob("*")) == before
    return str(caught.value)


@pytest.mark.parametrize("scheme", ["int4", "int8"])
def test_it_is_what_quantising_while_loading_gives(tiny_checkpoint, tmp_path, scheme):
    target = tmp_path / "new" / "quantised"
    parts = convert(Job(tiny_checkpoint, target, scheme))
    converted, other = load(target), load(tiny_checkpoint, quantize=scheme)
    mine, theirs = tensors_of(converted), tensors_of(other)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())
    assert converted.config.to_dict() == other.config.to_dict()
    assert sum(part.bytes for part in parts) == sum(tensor.nbytes for tensor in mine.values())
    assert sum(part.parameters for part in parts) == 133_056
    assert [path.name for path in target.parent.iterdir()] == ["quantised"]


def test_what_else_the_folder_held_goes_along(tiny_checkpoint, tmp_path):
    (tmp_path / "q").mkdir()  # an empty folder will do
    convert(Job(tiny_checkpoint, tmp_path / "q", "int8"))
    held = {path.name for path in tmp_path.joinpath("q").iterdir()}
    along = {"generation_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert held == along | {"config.json", "model.safetensors"}
    for name in along:
        assert (tmp_path / "q" / name).read_bytes() == (tiny_checkpoint / name).read_bytes()


def test_the_file_is_aligned_and_opens_with_safetensors(odd_folder, tmp_path):
    convert(Job(odd_folder, tmp_path / "q", "int4"))
    file = tmp_path / "q" / "model.safetensors"
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(length))
    for name, entry in header.items():
        if name.endswith("weight_codes") and "embed" not in name and "projector" not in name:
            assert (8 + length + entry["data_offsets"][0]) % 64 == 0, name
    with safe_open(file, framework="pt") as opened:
        assert opened.get_tensor("language_model.lm_head.weight_codes").shape == (5, 2, 512)


def test_parts_say_how_they_are_stored_and_what_it_cost(odd_folder, tmp_path):
    parts = {part.name: part for part in convert(Job(odd_folder, tmp_path / "q", "int4", group=32))}
    assert {name: part.stored_as for name, part in parts.items()} == {
        "encoder": "int8, groups of 32",
        "projector": "float16",
        "language model": "int4, groups of 32",
        "head": "int8, groups of 32",
        "embedding": "int8, groups of 64",
        "biases, norms, convolutions, positions": "float32",
    }
    assert 0.06 < parts["language model"].loss.relative < 0.1
    assert 0.003 < parts["head"].loss.relative < 0.008
    assert parts["projector"].loss.relative < 0.001
    data = json.loads((tmp_path / "q" / "config.json").read_text())["quantization_config"]
    assert data["modules"]["language_model.model.layers.0.mlp.up_proj"] == {"bits": 4, "group": 32}


def test_many_shards(odd_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "MAX_SHARD_BYTES", 10_000)
    convert(Job(odd_folder, tmp_path / "q", "int4"))
    assert (tmp_path / "q" / "model.safetensors.index.json").is_file()
    assert len(list((tmp_path / "q").glob("*.safetensors"))) > 2
    load(tmp_path / "q")


def test_a_calibration_is_applied_and_noted(odd_folder, odd_model, tmp_path):
    name = "language_model.model.norm.weight"
    calibration = Calibration({name: torch.tensor(2.0)})
    convert(Job(odd_folder, tmp_path / "q", "int8"), calibration, {"calibrated_on": ["dog.wav"]})
    assert torch.equal(load(tmp_path / "q").get_parameter(name), odd_model.get_parameter(name) * 2)
    assert json.loads((tmp_path / "q" / "config.json").read_text())["quantization_config"]["calibrated_on"] == [
        "dog.wav"
    ]


# Refused, with nothing left behind


def test_a_folder_that_is_not_empty(odd_folder, tmp_path):
    assert refusal(ConfigError, Job(odd_folder, odd_folder, "int4")) == (
        f"{odd_folder} is not empty; name a new folder, so that nothing is overwritten."
    )
    file = odd_folder / "config.json"
    assert f"{file} is not empty" in refusal(ConfigError, Job(odd_folder, file, "int4"))


def test_an_unknown_scheme_or_group(odd_folder, tmp_path):
    assert refusal(ConfigError, Job(odd_folder, tmp_path / "q", "int3")).startswith(
        "quantize is 'int3'; expected None,"
    )
    assert refusal(ConfigError, Job(odd_folder, tmp_path / "q", "int4", 128)) == (
        "group is 128; expected 32 or 64 inputs that share a scale."
    )


def test_what_is_quantised_already(odd_folder, tmp_path):
    convert(Job(odd_folder, tmp_path / "q", "int4"))
    assert refusal(ConfigError, Job(tmp_path / "q", tmp_path / "r", "int8")) == (
        f"{tmp_path / 'q'} is quantised to int4 already; take the checkpoint that it was made from."
    )
    path = odd_folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": {"quant_method": "gptq"}}))
    assert "is quantised (gptq); this package loads fp32" in refusal(
        WeightsError, Job(odd_folder, tmp_path / "r", "int8")
    )


def test_a_damaged_checkpoint_leaves_nothing_behind(odd_folder, tmp_path):
    held = load_file(odd_folder / "model.safetensors")
    held["language_model.lm_head.weight"][3, 3] = float("nan")
    save_file(held, odd_folder / "model.safetensors")
    assert refusal(WeightsError, Job(odd_folder, tmp_path / "q", "int4")) == (
        "language_model.lm_head.weight holds NaN or infinite numbers; the checkpoint is damaged."
    )
    (odd_folder / "model.safetensors").write_bytes((odd_folder / "model.safetensors").read_bytes()[:-8])
    assert "where its header promises" in refusal(WeightsError, Job(odd_folder, tmp_path / "q", "int4"))


def test_being_stopped_leaves_nothing_behind(odd_folder, tmp_path, monkeypatch):
    def stopped(*_):
        assert list(tmp_path.glob(".q.*.partial"))
        raise KeyboardInterrupt

    monkeypatch.setattr(converting, "_part_of", stopped)
    with pytest.raises(KeyboardInterrupt):
        convert(Job(odd_folder, tmp_path / "q", "int4"))
    assert [path.name for path in tmp_path.iterdir()] == ["plain"]


def test_no_room_on_the_disk_or_in_memory(odd_folder, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10, 10, 7))
    text = refusal(CapacityError, Job(odd_folder, Path(tmp_path / "a" / "q"), "int4"))
    assert re.fullmatch(
        rf"The checkpoint in int4 takes [\d.]+ kB, and {tmp_path} has 7 bytes free; make room, or write to another "
        r"disk\.",
        text,
    )
    monkeypatch.setattr(memory, "available_bytes", lambda: 1000)
    text = refusal(CapacityError, Job(odd_folder, tmp_path / "q", "int4"))
    assert re.fullmatch(
        r"Quantising to int4, one tensor at a time, takes [\d.]+ MB of memory, and 1 kB are available; free memory, or "
        r"use a larger machine\.",
        text,
    )
