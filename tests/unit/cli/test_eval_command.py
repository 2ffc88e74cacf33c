"""`eval` as a command: nano's test on nano, and what cannot be tested."""

import json
import shutil
import sys

import pytest

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


def test_without_a_synthesiser_one_sentence_says_so(cli, monkeypatch):
    monkeypatch.setattr("qwen2_audio.evaluate.nano.speech.engines.shutil.which", lambda name: None)
    status, _, err = cli("eval", "--tasks", "nano", "--model", "nano", "--count", "1")
    assert status == 2
    assert "espeak-ng and flite cannot be found" in err


@spoken
def test_without_jiwer_one_sentence_says_how_to_install_it_before_anything_is_asked(cli, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "jiwer", None)
    status, _, err = cli("eval", "--tasks", "nano", "--model", "nano", "--count", "1", "--out", tmp_path / "report")
    assert status == 2
    assert err == "qwen2-audio: Counting word errors needs jiwer: pip install 'qwen2-audio[eval]'.\n"
    assert not (tmp_path / "report").exists()


@spoken
def test_without_matplotlib_a_note_says_that_there_is_no_plot(cli, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    _, out, err = cli("eval", "--tasks", "nano", "--model", "nano", "--count", "1", "--out", tmp_path)
    assert "confusion.png is not drawn, as matplotlib is not installed: pip install 'qwen2-audio[plot]'." in err
    assert "nano.asr.wer" in out and "asking" not in out
    assert [path.name for path in tmp_path.iterdir() if path.suffix] == ["report.json"]
