"""TensorBoard beside metrics.jsonl."""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import ClassVar

import pytest

from qwen2_audio.errors import ConfigError
from qwen2_audio.train import metrics, sft


class Writer:
    """What torch.utils.tensorboard.SummaryWriter is asked."""

    made: ClassVar[list[Writer]] = []

    def __init__(self, folder, purge_step):
        self.folder, self.purge_step, self.scalars, self.closed = folder, purge_step, [], False
        self.made.append(self)

    def add_scalar(self, *scalar):
        self.scalars.append(scalar)

    def close(self):
        self.closed = True


@pytest.fixture
def installed(monkeypatch):
    """installed(True): as if TensorBoard were there, writing to `Writer.made`; installed(False): as if it were not."""

    def arrange(there):
        found = importlib.util.find_spec
        monkeypatch.setattr(
            metrics, "find_spec", lambda name: (object() if there else None) if name == "tensorboard" else found(name)
        )
        Writer.made.clear()
        module = types.ModuleType("torch.utils.tensorboard")
        module.SummaryWriter = Writer
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)

    return arrange


@pytest.mark.parametrize("setting", ["auto", "on"])
def test_events_are_the_lines_of_the_file(make, rows, installed, setting):
    installed(True)
    config = make(steps=2, eval_every=2, tensorboard=setting, data={"eval": str(rows)})
    sft.run(config)
    (writer,) = Writer.made
    assert writer.folder.endswith("run/tensorboard")
    assert (writer.purge_step, writer.closed) == (1, True)
    lines = metrics.read(metrics.Path(config.output) / "metrics.jsonl")
    assert ("training/loss", lines[0]["loss"], 1) in writer.scalars
    assert ("evaluation/loss", lines[2]["eval_loss"], 2) in writer.scalars
    assert len(writer.scalars) == sum(len(line) - 1 for line in lines)


def test_a_resumed_run_hides_what_came_after_its_checkpoint(make, installed):
    installed(True)
    sft.run(make(steps=2, tensorboard="off"))
    sft.run(make(steps=2, tensorboard="auto"))
    assert [writer.purge_step for writer in Writer.made] == [3]


def test_asked_for_and_absent_is_said_before_anything_is_loaded(make, installed):
    installed(False)
    with pytest.raises(ConfigError, match=r"tensorboard is 'on', and TensorBoard is not installed; pip install"):
        sft.run(make(steps=1, tensorboard="on", model="nowhere"))


def test_absent_and_not_asked_for_is_no_error(make, installed):
    installed(False)
    sft.run(make(steps=1))
    assert Writer.made == []


def test_the_real_writer_takes_what_it_is_given(tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    with metrics.Metrics(tmp_path, 0, tensorboard="on") as written:
        written.add(step=1, loss=2.0, count=3)
    assert list((tmp_path / "tensorboard").glob("events.*"))
