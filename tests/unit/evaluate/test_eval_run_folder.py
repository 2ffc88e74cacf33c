"""A run: what is recorded, killed, resumed, divided and refused."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import pytest

from kit.clip_files import wav_bytes
from kit.evaluation import TASK, KnowingModel, small_list
from qwen2_audio.datasets.row import EmbeddedSound, Sound
from qwen2_audio.errors import ConfigError, EvaluationError
from qwen2_audio.evaluate.folder import merge_shards, read_manifest, shard_folder
from qwen2_audio.evaluate.predictions import read_predictions
from qwen2_audio.evaluate.results import read_results, score_results
from qwen2_audio.evaluate.rows import Selection, parse_shard
from qwen2_audio.evaluate.run import Run

PREDICTIONS = "predictions.jsonl"


def run(folder, examples, model=None, *, task=TASK, **options):
    model = model or KnowingModel(examples)
    (done,) = Run(folder, model, **options).ask([(task, examples)])
    return done


def test_every_row_is_asked_once_and_again_not_at_all(tmp_path):
    examples = small_list(tmp_path / "data")
    model = KnowingModel(examples)
    done = run(tmp_path / "out", examples, model)
    assert (done.rows, done.asked, done.failed) == (6, 6, [])
    asked = model.asked
    found = read_predictions(tmp_path / "out" / PREDICTIONS)
    assert [one.text for one in found] == [example.reference for example in examples]
    assert found[0].heard == found[0].seconds == pytest.approx(0.3)
    assert run(tmp_path / "out", examples, model).asked == 0 and model.asked == asked
    assert (tmp_path / "out" / "speed.json").exists()


def test_rows_that_fail_are_recorded_and_asked_again(tmp_path):
    examples = small_list(tmp_path / "data")
    model = KnowingModel(examples)
    gone, broken = tmp_path / "data" / "001.wav", tmp_path / "data" / "003.wav"
    kept = gone.read_bytes()
    gone.unlink()
    broken.write_bytes(b"no sound at all")
    done = run(tmp_path / "out", examples, model)
    assert [one.id for one in done.failed] == ["001.wav", "003.wav"]
    assert "001.wav cannot be read: No such file" in done.failed[0].error
    found = read_predictions(tmp_path / "out" / PREDICTIONS)
    assert [bool(one.error) for one in found] == [False, True, False, True, False, False]
    gone.write_bytes(kept)
    again = run(tmp_path / "out", examples, model)
    assert again.asked == 2 and [one.id for one in again.failed] == ["003.wav"]
    assert read_predictions(tmp_path / "out" / PREDICTIONS)[1].text == examples[1].reference


def test_a_changed_clip_is_asked_again(tmp_path):
    examples = small_list(tmp_path / "data")
    run(tmp_path / "out", examples)
    (tmp_path / "data" / "002.wav").write_bytes(wav_bytes(0.4, hertz=999))
    assert run(tmp_path / "out", examples).asked == 1


def test_a_clip_over_30_s_is_cut_and_counted(tmp_path):
    (tmp_path / "long.wav").write_bytes(wav_bytes(35.0))
    examples = [replace(small_list(tmp_path, 1)[0], sound=Sound(str(tmp_path / "long.wav")))]
    done = run(tmp_path / "out", examples)
    (found,) = read_predictions(tmp_path / "out" / PREDICTIONS)
    assert (found.seconds, found.heard, done.cut) == (35.0, 30.0, 1)
    assert run(tmp_path / "out", examples).cut == 1  # also where the answer was there
    assert json.loads((tmp_path / "out" / "run.json").read_text())["tasks"]["asr"]["over_long"] == "first 30 s"


def test_a_clip_over_30_s_is_heard_whole_by_another_protocol(tmp_path):
    (tmp_path / "long.wav").write_bytes(wav_bytes(35.0))
    examples = [replace(small_list(tmp_path, 1)[0], sound=Sound(str(tmp_path / "long.wav")))]

    class Listening(KnowingModel):
        questions = ()

        def submit(self, question):
            self.questions = (*self.questions, question)
            return super().submit(question)

    model, told = Listening(examples), []
    options = {"long": "parts", "hearing_check": False, "tell": told.append}
    assert run(tmp_path / "out", examples, model, **options).cut == 0
    (found,), (question,) = read_predictions(tmp_path / "out" / PREDICTIONS), model.questions
    assert (found.seconds, found.heard, len(question.waveform), question.long) == (35.0, 35.0, 35 * 16_000, "parts")
    assert "another protocol: figures are not comparable" in told[-1]
    (scored,) = score_results(read_results(tmp_path / "out"))["tasks"].values()
    assert "over_long:whole, by parts" in scored["signature"]
    with pytest.raises(EvaluationError, match="with over_long 'whole, by parts', and this run asks with 'first 30 s'"):
        run(tmp_path / "out", examples)
    model.form = lambda task: "base"
    with pytest.raises(ConfigError, match="asr is asked in bare prompts, about one window; --long is for questions"):
        run(tmp_path / "base", examples, model, **options)


def test_a_part_of_a_file_and_bytes_in_a_table(tmp_path):
    first, second = small_list(tmp_path / "data", 2)
    whole = wav_bytes(2.0)
    part = replace(first, sound=Sound(EmbeddedSound("t.parquet#0", lambda: whole), 0.5, 0.25))
    past = replace(second, sound=Sound(EmbeddedSound("t.parquet#1", lambda: whole), 5.0))
    done = run(tmp_path / "out", [part, past], KnowingModel([part]))
    found = read_predictions(tmp_path / "out" / PREDICTIONS)
    assert found[0].seconds == 0.25 and found[0].audio == "t.parquet#0"
    assert done.failed[0].error == "t.parquet#1 lasts 2.00 s, and the row's part begins at 5 s."


def test_another_model_or_decoding_or_list_is_refused(tmp_path):
    examples = small_list(tmp_path / "data")
    out = tmp_path / "out"
    run(out, examples)
    with pytest.raises(
        EvaluationError, match=r"holds answers of knowing \(f00d, float32\), and this run asks knowing \(bad"
    ):
        run(out, examples, KnowingModel(examples, fingerprint="bad"))
    slower = replace(TASK, decoding=replace(TASK.decoding, max_tokens=50))
    with pytest.raises(
        EvaluationError, match=r"holds answers to asr with decoding .*40.*, and this run asks with .*50"
    ):
        run(out, examples, task=slower)
    with pytest.raises(EvaluationError, match="holds answers to asr with list"):
        run(out, examples[:3])
    run(out, examples, task=replace(TASK, id="other"), selection=Selection(limit=1))  # another task is welcome


def test_limits_grow_and_samples_are_drawn_by_seed(tmp_path):
    examples = small_list(tmp_path / "data", 8)
    assert run(tmp_path / "out", examples, selection=Selection(limit=2)).asked == 2
    assert run(tmp_path / "out", examples, selection=Selection(limit=5)).asked == 3
    one, two = (Selection(sample=4, seed=seed).rows(examples) for seed in (1, 2))
    assert one == Selection(sample=4, seed=1).rows(examples) != two
    assert [index for index, _ in one] == sorted(index for index, _ in one)
    with pytest.raises(ConfigError, match="Both --limit and --sample"):
        Selection(limit=1, sample=1)


def test_shards_make_the_file_of_one_run(tmp_path):
    examples = small_list(tmp_path / "data", 7)
    (tmp_path / "data" / "002.wav").write_bytes(b"damaged")
    run(tmp_path / "whole", examples)
    out = tmp_path / "shards"
    for text in ("2/3", "3/3"):
        shard = parse_shard(text)
        run(shard_folder(out, shard), examples, selection=Selection(shard=shard))
    with pytest.raises(EvaluationError, match="shard 1 of 3 is missing"):
        merge_shards(out)
    run(shard_folder(out, (1, 3)), examples, selection=Selection(shard=(1, 3)))
    assert merge_shards(out) and not merge_shards(tmp_path / "whole")
    with pytest.raises(EvaluationError, match="holds shards of a run; give --shard"):
        run(out, examples)  # its answers would be lost with the next merging
    with pytest.raises(EvaluationError, match="holds a whole run; leave --shard out"):
        run(shard_folder(tmp_path / "whole", (1, 3)), examples, selection=Selection(shard=(1, 3)))
    for name in (PREDICTIONS, "manifest.jsonl", "run.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert read_manifest(out)["asr", "002.wav"]["index"] == 2
    for wrong in ("0/3", "4/3", "3", "a/b"):
        with pytest.raises(ConfigError, match="--shard is"):
            Selection(shard=parse_shard(wrong))


def test_shards_of_different_runs_do_not_mix(tmp_path):
    examples = small_list(tmp_path / "data")
    out = tmp_path / "out"
    run(shard_folder(out, (1, 2)), examples, selection=Selection(shard=(1, 2)))
    other = KnowingModel(examples, fingerprint="bad")
    run(shard_folder(out, (2, 2)), examples, other, selection=Selection(shard=(2, 2)))
    with pytest.raises(EvaluationError, match="is of another run than"):
        merge_shards(out)


SLOW = """
    import sys, time
    from pathlib import Path
    from kit.evaluation import TASK, KnowingModel, small_list
    from qwen2_audio.evaluate.run import Run
    data, out, pause = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    examples = small_list(data, 40)
    class Slow(KnowingModel):
        def submit(self, question):
            wait = super().submit(question)
            def later():
                time.sleep(pause)
                return wait()
            return later
    Run(out, Slow(examples)).ask([(TASK, examples)])
"""


def slow(tmp_path, name, pause):
    tests = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([tests, *sys.path])}
    program = [sys.executable, "-c", textwrap.dedent(SLOW), tmp_path / "data", tmp_path / name, str(pause)]
    return subprocess.Popen(program, env=environment)


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path):
    assert slow(tmp_path, "whole", 0).wait(120) == 0
    path = tmp_path / "killed" / PREDICTIONS
    for least in (3, 12):
        process = slow(tmp_path, "killed", 0.02)
        end = time.monotonic() + 60
        while not path.exists() or path.read_bytes().count(b"\n") < least:
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with path.open("ab") as file:
            file.write(b'{"key": "to')  # as where the kill comes within a line
    assert path.read_bytes().count(b"\n") < 40
    assert slow(tmp_path, "killed", 0).wait(120) == 0
    for name in (PREDICTIONS, "manifest.jsonl", "run.json", "checks.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_model_that_does_not_hear_stops_the_run_before_it_begins(tmp_path):
    examples = small_list(tmp_path / "data")
    with pytest.raises(EvaluationError, match="knowing does not seem to hear: on 2 rows of asr the clip was exchanged"):
        run(tmp_path / "out", examples, KnowingModel(examples, deaf=True))
    assert read_predictions(tmp_path / "out" / PREDICTIONS) == []
    run(tmp_path / "out", examples, KnowingModel(examples, deaf=True), hearing_check=False)
    exempt = replace(TASK, id="refusals", deaf=None)
    run(tmp_path / "exempt", examples, KnowingModel(examples, deaf=True), task=exempt)
