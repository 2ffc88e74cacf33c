"""Files with aligned tensors, which safetensors reads."""

import json
from itertools import pairwise

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from qwen2_audio.quantize.files import lay_out, tensor_writer

TENSORS = {
    "odd": torch.arange(3, dtype=torch.float32),
    "codes": torch.arange(128, dtype=torch.uint8).view(2, 64),
    "half": torch.ones(5, 16, dtype=torch.float16),
    "signed": torch.full((7, 9), -3, dtype=torch.int8),
    "wide": torch.randn(4, 16),
    "empty": torch.zeros(0, 4),
}


def write_all(folder, tensors, limit=10**9):
    with tensor_writer(folder, tensors, limit) as write:
        for name in reversed(list(tensors)):
            write(name, tensors[name])


def write_some(write, *names):
    for name in names:
        write(name, TENSORS[name])


def test_safetensors_reads_what_is_written_in_any_order(tmp_path):
    write_all(tmp_path, TENSORS)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    back = load_file(tmp_path / "model.safetensors")
    assert back.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_tensors_begin_at_multiples_of_64_bytes_and_those_of_odd_sizes_come_last(tmp_path):
    header, offsets, size = lay_out(TENSORS)
    assert len(header) % 64 == 0
    even = [name for name, tensor in TENSORS.items() if tensor.nbytes % 64 == 0]
    assert len(even) == 3
    for name in even:
        assert offsets[name] % 64 == 0
    assert offsets["half"] % 32 == 0
    ends = sorted((offsets[name], offsets[name] + TENSORS[name].nbytes) for name in TENSORS)
    assert ends[0][0] == len(header) and ends[-1][1] == size
    assert all(entry[1] == other[0] for entry, other in pairwise(ends))
    assert all(TENSORS[name].is_contiguous() for name in even)


def test_more_than_the_limit_is_split_with_an_index(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"old")
    write_all(tmp_path, TENSORS, limit=200)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == TENSORS.keys()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in TENSORS.values())
    files = set(index["weight_map"].values())
    assert len(files) > 1
    assert files == {path.name for path in tmp_path.glob("*.safetensors")}  # the old file is gone
    for name, file in index["weight_map"].items():
        assert torch.equal(load_file(tmp_path / file)[name], TENSORS[name])


def test_nothing_half_written_stays(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"old")
    with pytest.raises(KeyError), tensor_writer(tmp_path, TENSORS, 10**9) as write:
        write_some(write, "codes", "no such tensor")
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert (tmp_path / "model.safetensors").read_bytes() == b"old"
    with pytest.raises(AssertionError, match="not written"), tensor_writer(tmp_path, TENSORS, 10**9) as write:
        write_some(write, "codes")
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
