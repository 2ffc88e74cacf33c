"""`eval` as a command: nano's test on nano, and what cannot be tested."""

import json
import shutil

import pytest

from qwen2_audio.cli import eval as command

spoken = pytest.mark.skipif(
    shutil.which("espeak-ng") is None or shutil.which("flite") is None, reason="needs espeak-ng and flite"
)


@spoken
def test_nano_is_tested_on_its_own_world(cli, tmp_path):
    status, out, err = cli("eval", "--tasks", "nano", "--model", "nano", "--count", "2", "--out", tmp_path)
    data = json.loads((tmp_path / "report.json").read_text())
    rows = {row["name"]: row for row in data["rows"]}
    assert {"nano.asr.wer", "nano.sound.accuracy", "nano.abstain.recall"} <= set(rows)
    assert status == (0 if all(row.get("met", True) for row in rows.values()) else 1), err
    assert rows["nano.sound.accuracy"]["value"] > 0.6
    assert "nano.voice_chat.accuracy" in out
    assert (tmp_path / "confusion.png").is_file()


def test_what_there_is_no_task_for_is_refused(cli):
    status, _, err = cli("eval", "--tasks", "nanoo")
    assert status == 2
    assert "There is no task 'nanoo'. Did you mean 'nano'? Tasks: nano." in err


def test_a_checkpoint_that_is_not_there_is_refused(cli):
    status, _, err = cli("eval", "--tasks", "nano", "--model", "no/where")
    assert status == 2
    assert "no/where is no folder; the nano task tests a checkpoint's folder." in err


def test_without_the_repository_one_sentence_says_where_the_task_is(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "__file__", str(tmp_path / "a" / "b" / "c" / "eval.py"))
    with pytest.raises(command.ConfigError, match="which is in the repository and not in the package; run this from"):
        command.recipe("evaluate")
