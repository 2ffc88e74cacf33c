"""`qwen2-audio job`: what each of its commands prints, and its exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from benchmarks.jobs.stub_worker import FACTORY
from qwen2_audio.cli.main import run
from qwen2_audio.jobs import run as driver
from qwen2_audio.jobs.status import status_of


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A job's file whose worker has no model; twelve rows, the sixth of which fails."""
    monkeypatch.setattr(driver.Job.__init__, "__defaults__", _with_factory(driver.Job.__init__.__defaults__))
    rows = [
        {"id": f"r{n}", "audio": f"https://nowhere/{n}.wav", **({"do": "fail"} if n == 5 else {})} for n in range(12)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    path = tmp_path / "job.toml"
    path.write_text(f'input = "{tmp_path}/rows.jsonl"\noutput = "{tmp_path}/out"\nask = "What?"\nworkers = 0\n')
    return path


def _with_factory(defaults):
    return tuple(FACTORY if value == driver.MODEL_WORKER else value for value in defaults)


def test_a_run_ends_with_a_table_and_names_what_failed(job, capsys):
    assert run(["job", "run", str(job)]) == 1
    out = capsys.readouterr().out
    assert "answered" in out and "11" in out
    assert "failed: r5: r5 is no sound." in out and "They are in" in out
    assert run(["job", "run", str(job), "--json"]) == 1
    summary = json.loads(capsys.readouterr().out)
    assert (summary["answered"], summary["failed"], summary["there_already"]) == (11, 1, 12)


def test_a_run_that_stopped_says_where_its_errors_are(job, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")  # so that no path is broken
    output = f"output={tmp_path}/[red]out"
    assert run(["job", "run", str(job), "--set", "max_errors=0", "--set", output]) == 1
    out = capsys.readouterr().out
    assert "[red]out/errors, or in" in out and "[red]out/journal until their part is whole." in out
    assert out.count(f"{tmp_path}/[red]out") == 3


def test_status_export_and_retry(job, tmp_path, capsys):
    run(["job", "run", str(job), "--quiet"])
    capsys.readouterr()
    assert run(["job", "status", str(tmp_path / "out"), "--price", "3"]) == 0
    out = capsys.readouterr().out
    assert "done    11 of 12" in out and "failed  1" in out and "for an hour of sound" in out
    assert run(["job", "status", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["failed"] == 1
    assert run(["job", "export", str(tmp_path / "out"), str(tmp_path / "all.jsonl")]) == 0
    assert "11 rows" in capsys.readouterr().out
    assert run(["job", "retry", str(job)]) == 1


def test_options_take_the_place_of_keys(job, tmp_path, capsys):
    assert run(["job", "run", str(job), "--limit", "5", "--set", f"output={tmp_path}/five", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answered"] == 5
    assert run(["job", "run", str(job), "--set", "workrs=2"]) == 2
    assert "there is no key 'workrs'. Did you mean 'workers'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["rnu", "x"], "there is no job 'rnu'. Did you mean 'run'?"),
        (["run", "missing.toml"], "Cannot read missing.toml: No such file or directory."),
        (["status", "nowhere"], "nowhere holds no job"),
    ],
)
def test_mistakes_are_one_sentence_and_status_2(arguments, sentence, capsys):
    assert run(["job", *arguments]) == 2
    err = capsys.readouterr().err
    assert sentence in err and err.count("\n") == 1


def test_help_lists_the_commands(capsys):
    assert run(["job"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in ("run", "status", "retry", "export", "plan"))


PROGRAM = """
import signal, sys
from benchmarks.jobs.stub_worker import FACTORY
from qwen2_audio.cli.main import main
from qwen2_audio.jobs.run import MODEL_WORKER, Job

Job.__init__.__defaults__ = tuple(FACTORY if x == MODEL_WORKER else x for x in Job.__init__.__defaults__)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins without
main(["job", "run", sys.argv[1], "--set", "workers=1"])
"""


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-C", "SIGTERM"])
def test_an_interrupted_job_goes_on(job, tmp_path, sent, status):
    rows = [json.dumps({"audio": f"https://nowhere/{n}.wav", "id": str(n), "do": "wait"}) for n in range(1000)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PROGRAM, str(job)]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment
    ) as started:
        until = time.monotonic() + 60
        while not any(file.stat().st_size for file in (tmp_path / "out").glob("journal/part-*")):
            assert time.monotonic() < until and started.poll() is None
            time.sleep(0.05)
        started.send_signal(sent)
        err = started.communicate(timeout=60)[1]
    assert started.returncode == status
    assert "Traceback" not in err
    if sent == signal.SIGINT:
        assert "Interrupted. What is answered is in" in err
    kept = status_of(tmp_path / "out").done
    assert 1 <= kept < 1000
