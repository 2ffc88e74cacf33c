"""`qwen2-audio bench`: options reach the benchmark, and benchmarks that moved are found, or named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from qwen2_audio.bench import load
from qwen2_audio.bench.report import Report, Row
from qwen2_audio.cli import bench
from qwen2_audio.cli.main import run as run_cli

APP = typer.Typer()
APP.command()(bench.command)
MACHINE = {"ours": "1", "checkpoint": "c", "dtype": "fp32", "cpu": "x", "threads": 2, "torch": "2"}
ROOT = Path(__file__).parents[3]


def test_options_of_the_command_reach_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def run(options: object, progress: object) -> Report:
        seen.append(options)
        return Report(MACHINE, [Row("load", 0.01234, "s")])

    monkeypatch.setattr(load, "run", run)
    arguments = ["load", "--url", "http://h", "--model", "a/b", "--rate", "2.5", "--requests", "7", "--clip", "x.wav"]
    arguments += ["--clip", "y.mp3", "--max-tokens", "5", "--seed", "9", "--api-key", "k"]
    ran = CliRunner().invoke(APP, arguments, catch_exceptions=False)
    assert seen[0] == load.Options("http://h", "a/b", "k", 2.5, 7, (Path("x.wav"), Path("y.mp3")), 5, 9)
    assert "12.3 ms" in ran.stdout
    CliRunner().invoke(APP, ["load"], catch_exceptions=False)
    assert seen[1] == load.Options()


@pytest.mark.parametrize("name", bench.MOVED)
def test_a_benchmark_that_moved_is_named_where_only_the_package_is(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "REPOSITORY", tmp_path)
    assert run_cli(["bench", name]) == 2
    assert capsys.readouterr().err == (
        f"qwen2-audio: bench {name} is no part of the installed package any more; run python -m benchmarks {name} "
        "in a clone of the repository.\n"
    )


def test_a_benchmark_that_moved_runs_with_a_notice_where_the_repository_is(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "qwen2_audio", "bench", "model", "--isa", "avx2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "qwen2-audio: bench model is called python -m benchmarks model now, and this name goes with the next version.",
        "qwen2-audio: --isa is an option of bench kernels; leave it out for bench model.",
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["load", "--repeats", "2"], "--repeats is an option of bench throughput; leave it out for bench load."),
        (["load", "--device", "cpu"], "--device is an option of bench throughput; leave it out for bench load."),
        (["throughput", "--api-key", "k"], "--api-key is an option of bench load; leave it out for bench throughput."),
        (["throughput", "--png", "x.png"], "--png is an option of bench load; leave it out for bench throughput."),
        (["throughput", "--requests", "0"], "requests is 0; expected at least 1."),
        (["throughput", "--max-tokens", "1"], "max_tokens is 1; expected at least 2."),
        (["throughput", "--repeats", "0"], "repeats is 0; expected at least 1."),
    ],
)
def test_options_that_cannot_work_are_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["bench", *arguments]) == 2
    assert capsys.readouterr().err == f"qwen2-audio: {sentence}\n"


def test_an_unknown_benchmark_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["bench", "laod"]) == 2
    sentence = "qwen2-audio: There is no bench 'laod'; expected one of load, throughput. Did you mean 'load'?\n"
    assert capsys.readouterr().err == sentence
