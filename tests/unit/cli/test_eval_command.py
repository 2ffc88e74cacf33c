"""`eval` as commands: nano's test on nano, a list of one's own, the old spelling, and what cannot be done."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

import qwen2_audio as qa
from kit.live_server import live

spoken = pytest.mark.skipif(
    shutil.which("espeak-ng") is None or shutil.which("flite") is None, reason="needs espeak-ng and flite"
)
TEXTS = {
    "capital": "What is the capital of France?",
    "command": "Open the gate in the living room.",
    "sum": "What is seven plus five?",
}


@pytest.fixture
def own_list(tmp_path):
    """Three of nano's clips with texts."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in TEXTS:
        shutil.copy(qa.nano_path() / "clips" / f"{name}.wav", folder)
    rows = [json.dumps({"audio": f"{name}.wav", "text": text}) for name, text in TEXTS.items()]
    (folder / "list.jsonl").write_text("\n".join(rows) + "\n")
    return folder / "list.jsonl"


def scores(folder):
    return json.loads((folder / "scores.json").read_text())


@spoken
def test_nano_is_tested_on_its_own_world(cli, tmp_path):
    status, out, err = cli("eval", "run", "nano", "--model", "nano", "--limit", "2", "--bars", "--out", tmp_path)
    data = json.loads((tmp_path / "report.json").read_text())
    rows = {row["name"]: row for row in data["rows"]}
    assert {"nano.asr.wer", "nano.sound.accuracy", "nano.abstain.recall"} <= set(rows)
    assert status == (0 if all(row.get("met", True) for row in rows.values()) else 3), err
    assert rows["nano.sound.accuracy"]["value"] > 0.6
    assert "nano.voice_chat.accuracy" in out
    assert (tmp_path / "confusion.png").is_file()


@spoken
def test_a_missed_bar_is_no_failure_unless_bars_are_asked_for(cli, tmp_path, monkeypatch):
    monkeypatch.setattr("qwen2_audio.evaluate.nano.tally.BARS", {"nano.asr.wer": -1.0})
    assert cli("eval", "run", "nano", "--model", "nano", "--limit", "1", "--out", tmp_path)[0] == 0
    assert cli("eval", "run", "nano", "--model", "nano", "--limit", "1", "--bars", "--out", tmp_path)[0] == 3


@spoken
def test_the_old_spelling_works_with_a_notice(cli, tmp_path):
    status, out, err = cli("eval", "--tasks", "nano", "--model", "nano", "--count=1", "--out", tmp_path)
    assert status in (0, 3) and "nano.asr.wer" in out
    notice = (
        f"this is now qwen2-audio eval run nano --model nano --limit 1 --out {tmp_path} --bars; --tasks and --count go"
    )
    assert notice in err


def test_a_list_of_one_s_own(cli, tmp_path, own_list):
    out_folder = tmp_path / "out"
    status, out, err = cli("eval", "run", "asr", "--model", "nano", "--data", own_list, "--out", out_folder)
    assert status == 0, err
    assert out.startswith(" ") and "asr, word errors" in out
    assert f"More in {out_folder}/report.html." in err
    found = scores(out_folder)["tasks"]["asr"]
    assert found["scored"] == 3 and found["metrics"]["wer"]["value"] == 0.0
    before = (out_folder / "scores.json").read_bytes()
    status, out, err = cli("eval", "run", "asr", "--model", "nano", "--data", own_list, "--out", out_folder)
    assert status == 0 and "3 were there already" in err
    assert (out_folder / "scores.json").read_bytes() == before
    assert cli("eval", "score", out_folder)[0] == cli("eval", "report", out_folder, "--json")[0] == 0
    assert (out_folder / "scores.json").read_bytes() == before
    assert str(tmp_path) not in before.decode()


def test_a_row_that_fails_is_named_and_exits_with_1(cli, tmp_path, own_list):
    (own_list.parent / "sum.wav").write_bytes(b"no sound")
    status, out, err = cli("eval", "run", "asr", "--model", "nano", "--data", own_list, "--out", tmp_path / "out")
    assert status == 1
    assert "1 failed, the first of them" in err and "sum.wav" in err
    assert "1 of 3 rows are not scored: no answer." in out


def test_shards_are_put_together_by_score(cli, tmp_path, own_list):
    whole, shards = tmp_path / "whole", tmp_path / "shards"
    assert cli("eval", "run", "asr", "--model", "nano", "--data", own_list, "--out", whole)[0] == 0
    for shard in ("1/2", "2/2"):
        status, out, err = cli(
            "eval", "run", "asr", "--model", "nano", "--data", own_list, "--out", shards, "--shard", shard
        )
        assert (status, out) == (0, "") and f"Shard {shard} is done." in err
    assert cli("eval", "score", shards)[0] == 0
    for name in ("predictions.jsonl", "scores.json"):
        assert (whole / name).read_bytes() == (shards / name).read_bytes()


def test_another_model_for_a_run_s_folder_is_refused(cli, tmp_path, own_list):
    out = tmp_path / "out"
    assert cli("eval", "run", "asr", "--model", "nano", "--data", own_list, "--out", out, "--limit", "1")[0] == 0
    status, _, err = cli("eval", "run", "asr", "--data", own_list, "--out", out)
    assert status == 2 and f"{out} holds answers of nano (" in err


def test_two_runs_are_compared(cli, tmp_path, own_list):
    for name, model in (("a", "nano"), ("b", None)):
        options = ["--model", model] if model else []
        assert (
            cli("eval", "run", "asr", *options, "--data", own_list, "--out", tmp_path / name, "--no-deaf-check")[0] == 0
        )
    status, out, _ = cli("eval", "compare", tmp_path / "a", tmp_path / "b")
    assert status == 0
    assert "asr: 3 common rows; nano, then checkpoint" in out and "0 rows better, 3 worse" in out
    status, out, _ = cli("eval", "compare", tmp_path / "a", tmp_path / "b", "--json")
    assert json.loads(out)["tasks"][0]["worse"] == 3


def test_other_people_s_answers_are_scored(cli, tmp_path):
    rows = [
        {"gt": "A DOG BARKS", "response": "a dog barks", "source": "librispeech_test_clean", "audio_path": "a.flac"}
    ]
    (tmp_path / "answers.json").write_text(json.dumps(rows))
    arguments = ("eval", "score", tmp_path / "answers.json", "--out", tmp_path / "out")
    assert cli(*arguments)[0] == 2
    status, out, err = cli(*arguments, "--task", "librispeech-test-clean")
    assert status == 0, err
    assert "librispeech-test-clean, word errors" in out and "paper 1.60" in out
    status, _, err = cli(*arguments[:-1], tmp_path / "other", "--task", "meld")
    assert status == 2 and "has answers to librispeech_test_clean, and meld is of meld_dev, meld_test" in err


def test_the_list_needs_no_torch(tmp_path):
    program = "import sys; from qwen2_audio.cli.main import run; run(['eval', 'list']); run(['eval', 'run', '--help'])"
    program += "; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=os.environ)
    lines = done.stdout.splitlines()
    assert lines[-1] == "False", done.stderr
    assert any(line.startswith("librispeech-test-clean  ") and "1.60 % (paper)" in line for line in lines)


def test_what_there_is_no_task_for_is_refused(cli):
    status, _, err = cli("eval", "run", "nanoo", "--data", ".")
    assert status == 2
    assert "There is no task 'nanoo'. Did you mean 'nano'?" in err
    status, _, err = cli("eval", "runn")
    assert status == 2 and "there is no eval 'runn'. Did you mean 'run'?" in err


def test_a_checkpoint_that_is_not_there_is_refused(cli):
    status, _, err = cli("eval", "run", "nano", "--model", "no/where")
    assert status == 2
    assert "no/where is no folder; the nano task tests a checkpoint's folder." in err


def test_options_of_other_tasks_are_refused(cli, tmp_path):
    assert "--data, --base-url, --sample" in cli("eval", "run", "nano", "--sample", "1")[2]
    assert "--before, --real and --bars are of the task nano" in cli("eval", "run", "asr", "--bars")[2]
    assert "--data is missing: where the rows of meld are. MELD.Raw" in cli("eval", "run", "meld")[2]
    assert "The task nano is run by itself" in cli("eval", "run", "asr,nano", "--data", tmp_path)[2]
    assert "holds no run (no run.json)" in cli("eval", "score", tmp_path)[2]
    assert "Nobody is named to judge" in cli("eval", "judge", tmp_path)[2]


def test_without_a_synthesiser_one_sentence_says_so(cli, monkeypatch):
    monkeypatch.setattr("qwen2_audio.evaluate.nano.speech.engines.shutil.which", lambda name: None)
    status, _, err = cli("eval", "run", "nano", "--model", "nano", "--limit", "1")
    assert status == 2
    assert "espeak-ng and flite cannot be found" in err


@spoken
def test_without_rapidfuzz_one_sentence_says_how_to_install_it_before_anything_is_asked(cli, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "rapidfuzz.distance", None)
    status, _, err = cli("eval", "run", "nano", "--model", "nano", "--limit", "1", "--out", tmp_path / "report")
    assert status == 2
    assert err == "qwen2-audio: Counting word errors needs rapidfuzz: pip install 'qwen2-audio[eval]'.\n"
    assert not (tmp_path / "report").exists()


def test_calibrate_writes_what_it_shows(cli, tmp_path, own_list, monkeypatch):
    monkeypatch.setattr("qwen2_audio.evaluate.calibrate.FEWEST", 1)
    model = shutil.copytree(qa.nano_path(), tmp_path / "mine", ignore=shutil.ignore_patterns("clips"))
    with own_list.open("a") as file:
        file.write(json.dumps({"audio": "sum.wav", "text": "Something else is said."}) + "\n")
        file.write(json.dumps({"audio": "gone.wav", "text": "Nothing."}) + "\n")
    ask = ("eval", "calibrate", "asr", "--model", model, "--data", own_list)
    before = (model / "transcription.json").read_bytes()
    status, out, err = cli(*ask, "--dry-run")
    assert (model / "transcription.json").read_bytes() == before
    assert status == 1 and "1 rows are left out, the first of them" in err and "gone.wav" in err
    assert "It flags " in out and " of 1 wrong and 0 of 3 right ones" in out and "words wrong" in out
    status, out, err = cli(*ask, "--json", "--limit", "4")
    found = json.loads(out)
    assert status == 0 and found["file"] == str(model / "transcription.json") and found["right"] == 3
    written = json.loads((model / "transcription.json").read_text())
    assert written == {**json.loads(before), "min_confidence": found["threshold"]}
    status, _, err = cli(*ask, "--limit", "4", "--out", tmp_path / "named.json")
    assert status == 0 and json.loads((tmp_path / "named.json").read_text()) == written
    assert f"in {tmp_path / 'named.json'}." in err and "It acts as transcription.json" in err


def test_calibrate_refuses_what_has_no_transcripts(cli, own_list):
    assert "meld has no transcripts" in cli("eval", "calibrate", "meld", "--data", own_list)[2]
    assert "leave --data, --sample and --lang out" in cli("eval", "calibrate", "nano", "--data", own_list)[2]
    assert "There is no task 'nanno'" in cli("eval", "calibrate", "nanno")[2]


@spoken
def test_without_matplotlib_a_note_says_that_there_is_no_plot(cli, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    _, out, err = cli("eval", "run", "nano", "--model", "nano", "--limit", "1", "--out", tmp_path)
    assert "confusion.png is not drawn, as matplotlib is not installed: pip install 'qwen2-audio[plot]'." in err
    assert "nano.asr.wer" in out and "asking" not in out
    assert [path.name for path in tmp_path.iterdir() if path.suffix] == ["report.json"]


def test_of_a_group_tasks_without_data_are_left_out(cli, tmp_path, own_list):
    """Nano has no language tags, so every row fails: what counts is that the others are told and left out."""
    rows = [{"audio": "sum.wav", "gt": "WHAT IS SEVEN PLUS FIVE", "source": "librispeech_test_clean"}]
    (own_list.parent / "librispeech_eval.jsonl").write_text(json.dumps(rows[0]) + "\n")
    own_list.unlink()
    arguments = ("--model", "nano", "--data", own_list.parent, "--out", tmp_path / "out")
    status, _, err = cli("eval", "run", "paper", *arguments)
    assert status == 1, err
    assert "meld is left out: " in err and "librispeech-test-clean is left out" not in err
    assert "librispeech-test-clean is a task of the base checkpoint, and this is an Instruct one" in err
    assert "The tokenizer has no <|en|>" in err
    status, _, err = cli("eval", "run", "paper", "--data", tmp_path / "empty")
    assert status == 2 and "There is no file or folder" in err


def test_a_killed_run_ends_in_the_same_scores(tmp_path, own_list):
    """The real thing: the command on nano, killed by SIGKILL while it asks, and run again."""
    lines = own_list.read_text().splitlines() * 60
    own_list.write_text("\n".join(lines) + "\n")

    def start(out, *options):
        command = [
            sys.executable,
            "-m",
            "qwen2_audio",
            "eval",
            "run",
            "asr",
            "--model",
            "nano",
            "--data",
            str(own_list),
        ]
        silent = subprocess.DEVNULL
        return subprocess.Popen([*command, "--out", str(tmp_path / out), *options], stdout=silent, stderr=silent)

    assert start("whole").wait(200) == 0
    process = start("killed", "--in-flight", "2")
    path, end = tmp_path / "killed" / "predictions.jsonl", time.monotonic() + 100
    while not path.exists() or path.read_bytes().count(b"\n") < 5:
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert 5 <= path.read_bytes().count(b"\n") < 180
    assert start("killed").wait(200) == 0
    for name in ("scores.json", "predictions.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_missing_package_is_told_before_anything_is_asked(cli, tmp_path, own_list, monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidfuzz.distance", None)
    status, _, err = cli("eval", "run", "asr", "--model", "nano", "--data", own_list, "--out", tmp_path / "out")
    assert status == 2 and "needs rapidfuzz: pip install 'qwen2-audio[eval]'." in err
    assert not (tmp_path / "out").exists()


def test_a_server_is_asked_and_judges(cli, tmp_path, own_list):
    """Our own server, which answers as the checkpoint does here, and judges in nonsense."""
    rows = [{"audio": "sum.wav", "question": "What do you hear?", "answer": "A sum."}]
    (own_list.parent / "qa.jsonl").write_text(json.dumps(rows[0]) + "\n")
    chat = qa.load("nano", device="cpu", dtype="float32")
    with live(chat.service()) as server:
        for task, data in (("asr", own_list), ("qa", own_list.parent / "qa.jsonl")):
            arguments = ("--base-url", server.url, "--data", data, "--out", tmp_path / task, "--in-flight", "2")
            status, _, err = cli("eval", "run", task, *arguments)
            assert status == 0, err
        status, _, err = cli("eval", "judge", tmp_path / "qa", "--base-url", server.url)
    assert scores(tmp_path / "asr")["tasks"]["asr"]["metrics"]["wer"]["value"] == 0.0
    assert status == 2 and "gave no score in any of 1 replies; the first is " in err
    assert (tmp_path / "qa" / "judgements.jsonl").read_text().count("\n") == 1
    status, _, err = cli("eval", "judge", tmp_path / "qa", "--base-url", server.url)
    assert status == 2 and "does not answer: " in err and "Start the server" in err
