"""A config with a byte order mark is read; without matplotlib everything but pictures is there."""

import sys

import pytest

from qwen2_audio.train import preview, sft
from qwen2_audio.train.config import TrainConfig


def test_a_config_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "run.toml"
    path.write_bytes(b'\xef\xbb\xbfoutput = "out"\n[data]\ntrain = "rows.jsonl"\n')
    assert TrainConfig.from_file(path).output == "out"


@pytest.fixture
def without_matplotlib(monkeypatch):
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)


def test_a_preview_without_matplotlib_shows_the_tokens(make, without_matplotlib, capsys):
    assert preview.run(make()) == []
    said = capsys.readouterr().out
    assert said.count("Trained tokens: ") == 2 * 3  # of the answer and of the rejected one, in three rows
    assert said.count("No pictures: Drawing a spectrogram needs matplotlib: pip install qwen2-audio[plot].") == 1


@pytest.mark.picture
def test_a_run_without_matplotlib_ends_with_its_result(make, without_matplotlib, capsys):
    assert (sft.run(make(steps=1)) / "config.json").is_file()
    assert "no picture of the loss: matplotlib is not installed" in capsys.readouterr().err
