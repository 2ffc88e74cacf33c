"""Fixtures of a run on the tiny checkpoint with six rows of data; a conftest that imports them has them."""

import pytest

from kit.rows import write_rows
from qwen2_audio.train import loop
from qwen2_audio.train.config import TrainConfig, from_table


@pytest.fixture
def rows(tmp_path):
    return write_rows(tmp_path)


@pytest.fixture(autouse=True)
def no_picture(request, monkeypatch):
    """A run of a few steps takes half its time for loss.png: only tests marked `picture` have it drawn."""
    if request.node.get_closest_marker("picture") is None:
        monkeypatch.setattr(loop, "draw", lambda output: output)


@pytest.fixture
def make(tiny_checkpoint, tmp_path, rows):
    """make(steps=3, ...) -> TrainConfig of the tiny checkpoint and the six rows."""

    def config(**changes) -> TrainConfig:
        table = {
            "model": str(tiny_checkpoint), "output": str(tmp_path / "run"), "device": "cpu", "method": "full",
            "parts": ["encoder", "projector", "language_model"],
        }  # fmt: skip
        table["data"] = {"train": str(rows), "batch_size": 2} | changes.pop("data", {})
        table["optim"] = {"learning_rate": 1e-3, "schedule": "constant"} | changes.pop("optim", {})
        return from_table(TrainConfig, table | changes)

    return config
