"""The random checkpoint: official layout, same everywhere, within the shard size."""

from __future__ import annotations

import json
import math
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from qwen2_audio.checkpoint.weights import Checkpoint
from qwen2_audio.errors import CapacityError
from qwen2_audio.evaluate import random_checkpoint as checkpoint
from qwen2_audio.evaluate.random_checkpoint import MAX_SHARD_BYTES, SHAPES, Shape, draw, ensure, num_parameters

TINY = Shape(1, 16, 2, 32, 1, 32, 2, 64, 300, 290)


def test_it_has_the_official_proportions() -> None:
    shards = checkpoint._shards(Shape())
    sizes = {name: size for shard in shards for name, size in shard.items()}
    assert sum(math.prod(size) for size in sizes.values()) == pytest.approx(1.53e9, rel=0.01)
    assert sizes["language_model.lm_head.weight"] == (156_032, 2048)
    assert sizes["audio_tower.layers.15.fc1.weight"] == (2560, 640)
    assert all(2 * sum(math.prod(size) for size in shard.values()) <= MAX_SHARD_BYTES for shard in shards)


def test_the_full_shape_is_the_official_one() -> None:
    sizes = {name: size for shard in checkpoint._shards(SHAPES["full"]) for name, size in shard.items()}
    assert sum(math.prod(size) for size in sizes.values()) == 8_397_094_912
    assert sizes["language_model.model.layers.31.mlp.up_proj.weight"] == (11008, 4096)
    assert sizes["multi_modal_projector.linear.weight"] == (4096, 1280)


def test_it_is_written_in_shards_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(checkpoint, "MAX_SHARD_BYTES", 60_000)
    lines: list[str] = []
    folder = ensure(TINY, progress=lines.append)
    assert folder.parent == tmp_path / "qwen2-audio" / "bench"
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(files) == len(lines) > 1
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    stored = Checkpoint.open(folder)
    assert sum(math.prod(stored.shape(name)) for name in stored.stored) == num_parameters(folder)
    assert {stored.dtype(name) for name in stored.stored} == {torch.bfloat16}
    assert json.loads((folder / "generation_config.json").read_text())["do_sample"] is False
    before = (folder / "config.json").stat().st_mtime_ns
    assert ensure(TINY) == folder
    assert (folder / "config.json").stat().st_mtime_ns == before


def test_a_half_written_checkpoint_is_written_again(tmp_path: Path) -> None:
    ensure(TINY, tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    broken = next(tmp_path.glob("*.safetensors"))
    broken.write_bytes(b"")
    ensure(TINY, tmp_path)
    assert broken.stat().st_size > 1000


def test_a_tensor_depends_on_its_name_only_and_keeps_what_goes_through_it_in_size() -> None:
    weight = draw("language_model.model.layers.0.mlp.up_proj.weight", (300, 400))
    assert torch.equal(weight, draw("language_model.model.layers.0.mlp.up_proj.weight", (300, 400)))
    assert not torch.equal(weight, draw("language_model.model.layers.1.mlp.up_proj.weight", (300, 400)))
    assert float(weight.float().std()) == pytest.approx(400**-0.5, rel=0.05)
    assert bool((draw("language_model.model.norm.weight", (8,)) == 1).all())
    assert bool((draw("audio_tower.layer_norm.bias", (8,)) == 0).all())


def test_positions_are_whispers_sinusoids() -> None:
    table = draw("audio_tower.embed_positions.weight", (1500, 640)).float()
    assert table[0, :3].tolist() == [0, 0, 0]
    assert table[0, -3:].tolist() == [1, 1, 1]
    assert float(table[7, 1]) == pytest.approx(math.sin(7 * 10000 ** (-1 / 319)), abs=4e-3)


def test_a_full_disk_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 10, 0))
    with pytest.raises(
        CapacityError, match=r"^The random checkpoint to measure on takes .* has 0 bytes free; make room"
    ):
        ensure(TINY, tmp_path / "new")
    assert not list((tmp_path / "new").glob("*"))


def test_a_large_tensor_repeats_what_was_drawn_but_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_MAX_DRAWN", 97)
    weight = draw("language_model.lm_head.weight", (30, 20))
    assert len({tuple(row.tolist()) for row in weight}) == 30
    assert float(weight.float().std()) == pytest.approx(20**-0.5, rel=0.2)


def test_the_quantised_copy_lies_beside_it(folder: Path) -> None:
    copy = checkpoint.quantized(folder, "int8")
    assert (copy.parent, copy.name) == (folder.parent, "tiny-int8")
    assert (checkpoint.scheme_of(folder), checkpoint.scheme_of(copy)) == ("fp32", "int8")
    assert checkpoint.nbytes(folder) == 4 * num_parameters(folder)
    assert checkpoint.nbytes(copy) < 0.6 * checkpoint.nbytes(folder)
    assert checkpoint.quantized(folder, "int8") == copy  # made once
