"""A tiny checkpoint in the official layout, and what a whole `bench model` on it gave: made once."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import main as bench
from qwen2_audio.evaluate.random_checkpoint import Shape, ensure

TINY = Shape(2, 64, 2, 128, 2, 64, 2, 128, 1000, 990, label="tiny")
APP = typer.Typer()
APP.command()(bench.command)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure(TINY, tmp_path_factory.mktemp("bench") / "tiny")


@pytest.fixture(scope="session")
def run_command(tmp_path_factory: pytest.TempPathFactory):
    """Run `bench` with --json and --png: exit code, streams, the JSON's data and the picture's path."""

    def run(*arguments: object) -> SimpleNamespace:
        out = tmp_path_factory.mktemp("out")
        files = ["--json", out / "b.json", "--png", out / "b.png", "--threads", "1"]
        ran = CliRunner().invoke(APP, [str(argument) for argument in (*arguments, *files)], catch_exceptions=False)
        data = json.loads((out / "b.json").read_text())
        rows = {row["name"]: row for row in data["rows"]}
        return SimpleNamespace(
            exit_code=ran.exit_code, stdout=ran.stdout, stderr=ran.stderr, data=data, rows=rows, png=out / "b.png"
        )

    return run


@pytest.fixture(scope="session")
def result(folder: Path, run_command) -> SimpleNamespace:
    """One whole run: tiny shape, one thread, everything that can be asked for."""
    return run_command("model", "--model", folder, "--format", "int4,fp32", "--quick", "--repeats", "1")
