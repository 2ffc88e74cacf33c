"""SIGTERM ends commands that keep temporary files by an exception, and the files go with them."""

from __future__ import annotations

import os
import signal
import tempfile

import pytest

import qwen2_audio as qa
from qwen2_audio.evaluate.nano import examination
from qwen2_audio.evaluate.verify import run as verify
from qwen2_audio.evaluate.verify.table import Row
from qwen2_audio.train import overfit


@pytest.fixture
def unheard():
    """The signal does nothing but what the command makes of it."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    yield
    assert signal.getsignal(signal.SIGTERM).__qualname__.startswith("unheard"), "it is put back"
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("command", "module", "name"),
    [
        (("verify", "--only", "machine"), verify, "random_official"),
        (("train", "overfit"), overfit, "set_up"),
        (("eval", "run", "nano", "--model", qa.nano_path()), examination, "examine"),
    ],
    ids=["verify", "overfit", "nano's examination"],
)
def test_nothing_is_left(cli, unheard, monkeypatch, tmp_path, command, module, name):
    home, ended = tmp_path / "temporary", []
    home.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(home))
    for row in ("golden_row", "log_mel_row"):
        monkeypatch.setattr(verify, row, lambda *_: Row("machine", "check", "subject", 0.0, 1.0, ""))
    monkeypatch.setattr(verify, "nano", lambda: None)
    monkeypatch.setattr(verify, "subject_rows", lambda *_: iter(()))

    def end(*_, **__):
        ended.append(1)
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("it goes on")

    monkeypatch.setattr(module, name, end)
    try:
        status = cli(*command)[0]
    except SystemExit as ending:
        status = ending.code
    assert (status, ended) == (128 + signal.SIGTERM, [1])
    assert list(home.iterdir()) == []
