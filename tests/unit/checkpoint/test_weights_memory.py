"""What loading costs: the model and one tensor of memory, and a bar for those who wait."""

import itertools
import re
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from qwen2_audio.checkpoint import weights

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def checkpoint(folder: Path, count: int, size: int) -> nn.ParameterDict:
    """A file of `count` tensors of `size` fp32 numbers, and the empty model it fills."""
    save_file({f"p{i}": torch.ones(size) for i in range(count)}, folder / "model.safetensors")
    with torch.device("meta"):
        return nn.ParameterDict({f"p{i}": nn.Parameter(torch.empty(size)) for i in range(count)})


def private_bytes() -> int:
    """Memory of this process that no file backs."""
    return 1024 * int(re.findall(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[0])


def test_one_tensor_at_a_time(tmp_path, monkeypatch):
    read, alive = weights.Checkpoint.read, []

    def watched(self, name):
        assert sum(ref() is not None for ref in alive) <= 1  # the one before may live until it is replaced
        tensor = read(self, name)
        alive.append(weakref.ref(tensor))
        return tensor

    model = checkpoint(tmp_path, 8, 10)
    monkeypatch.setattr(weights.Checkpoint, "read", watched)
    weights.load_checkpoint(model, tmp_path, torch.bfloat16)
    assert len(alive) == 8


@needs_proc
def test_memory_is_the_model_and_one_tensor(tmp_path, monkeypatch):
    count, size = 12, 2_000_000  # 4 MB each in bf16, 8 MB in the file
    model = checkpoint(tmp_path, count, size)
    read, before, peak = weights.Checkpoint.read, private_bytes(), [0]

    def watched(self, name):
        peak[0] = max(peak[0], private_bytes() - before)
        return read(self, name)

    monkeypatch.setattr(weights.Checkpoint, "read", watched)
    weights.load_checkpoint(model, tmp_path, torch.bfloat16)
    peak[0] = max(peak[0], private_bytes() - before)
    assert peak[0] < count * size * 2 + 2 * size * 4  # the model, and less than two tensors


@needs_proc
def test_what_needs_no_cast_stays_in_the_file(tmp_path):
    model = checkpoint(tmp_path, 1, 16_000_000)
    before = private_bytes()
    weights.load_checkpoint(model, tmp_path)
    assert private_bytes() - before < 16_000_000  # of 64,000,000
    assert model["p0"].sum() == 16_000_000


@pytest.mark.parametrize(("terminal", "seconds", "shown"), [(True, 2, True), (True, 0, False), (False, 2, False)])
def test_a_bar_for_those_who_watch_and_wait(tmp_path, monkeypatch, capsys, terminal, seconds, shown):
    clock = itertools.count(0, seconds)
    monkeypatch.setattr(weights, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.delenv("TTY_COMPATIBLE", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    weights.load_checkpoint(checkpoint(tmp_path, 4, 10), tmp_path)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert ("Loading weights" in printed.err) == shown
    assert shown or printed.err == ""
