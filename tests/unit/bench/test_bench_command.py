"""`bench model` end to end on a tiny checkpoint, and the workers' failures."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from qwen2_audio.bench import model
from qwen2_audio.bench.channel import Worker
from qwen2_audio.bench.checkpoint import Shape, ensure
from qwen2_audio.bench.report import Report, Row, cell
from qwen2_audio.cli import bench
from qwen2_audio.errors import CapacityError, ConfigError, Qwen2AudioError

TINY = Shape(2, 32, 2, 64, 2, 64, 2, 128, 1000, 990)
APP = typer.Typer()
APP.command()(bench.command)
PEER = find_spec("transformers") is not None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure(TINY, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def result(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """One whole run: tiny shape, one thread, everything that can be asked for."""
    out = tmp_path_factory.mktemp("out")
    arguments = ["model", "--model", folder, "--json", out / "b.json", "--png", out / "b.png"]
    arguments += ["--quick", "--profile", "--repeats", "1", "--threads", "1"]
    ran = CliRunner().invoke(APP, [str(argument) for argument in arguments], catch_exceptions=False)
    data = json.loads((out / "b.json").read_text())
    return SimpleNamespace(exit_code=ran.exit_code, stdout=ran.stdout, stderr=ran.stderr, data=data, png=out / "b.png")


def rows(result: SimpleNamespace) -> dict[str, dict]:
    return {row["name"]: row for row in result.data["rows"]}


def test_the_json_has_the_documented_shape(result: SimpleNamespace) -> None:
    assert result.exit_code == 0
    assert {"cpu", "cores", "threads", "torch", "date", "checkpoint"} <= set(result.data["machine"])
    assert result.data["machine"]["threads"] == 1
    for row in result.data["rows"]:
        assert {"name", "value", "unit", "peer", "ratio", "limit"} <= set(row)
    assert list(rows(result)) == [
        "import, torch loaded",
        "load",
        "log-mel, 3 s clip",
        "log-mel, 30 s clip",
        "encoder, 3 s clip",
        "first token, 1 s clip",
        "first token, 3 s clip",
        "decode after a 3 s clip",
        "peak memory",
    ]
    assert all(row["value"] > 0 for row in rows(result).values())


@pytest.mark.skipif(not PEER, reason="transformers is not installed")
def test_both_sides_computed_the_same(result: SimpleNamespace) -> None:
    got = rows(result)
    assert got["log-mel, 3 s clip"]["note"].startswith("same within")
    assert got["encoder, 3 s clip"]["note"].startswith("same within")
    assert got["first token, 3 s clip"]["note"] == "same token"
    assert got["decode after a 3 s clip"]["note"] == "same 9 tokens"
    assert all(row["peer"] > 0 and row["ratio"] > 0 for row in got.values())


def test_the_table_goes_to_stdout_and_progress_to_stderr(result: SimpleNamespace) -> None:
    assert "decode after a 3 s clip" in result.stdout
    assert "ratio above 1 always means that ours is better" in " ".join(result.stdout.split())
    assert "Where our time goes" in result.stdout
    assert "first token, 3 s clip: warm-up" in result.stderr
    assert "warm-up" not in result.stdout


@pytest.mark.skipif(not PEER or find_spec("matplotlib") is None, reason="transformers or matplotlib is not installed")
def test_the_picture_is_a_png(result: SimpleNamespace) -> None:
    assert result.png.read_bytes().startswith(b"\x89PNG")


def test_the_profile_explains_the_first_token_and_a_decode_step(result: SimpleNamespace) -> None:
    stages = {stage["stage"].strip(): stage for stage in result.data["profile"]}
    assert {"log-mel", "encoder", "prefill", "attention", "mlp", "head", "decode, a token"} <= set(stages)
    parts = ("log-mel", "encoder", "projector, embedding, merge", "prefill")
    assert sum(stages[name]["ms"] for name in parts) == pytest.approx(stages["first token"]["ms"], rel=1e-6)
    assert all(stage["ms"] >= 0 for stage in stages.values())
    assert stages["decode, a token"]["unit"] == "GB/s"


def test_a_failed_order_is_told_in_one_sentence(tmp_path: Path) -> None:
    with Worker("ours", 1) as worker:
        with pytest.raises(Qwen2AudioError, match=r"^The bench's ours side failed at 'load': WeightsError: .*"):
            worker.ask("load", folder=str(tmp_path / "nowhere"))
        assert worker.ask("library")["value"] > 0  # and it goes on
        worker._process.kill()
        with pytest.raises(CapacityError, match=r"^The bench's ours side was killed at 'memory', most likely because"):
            worker.ask("memory")


def test_a_worker_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")
    with (
        Worker("ours", 1) as worker,
        pytest.raises(Qwen2AudioError, match=r"side ended with exit status \d+ at 'load'"),
    ):
        worker.ask("load", folder="x")


@pytest.mark.parametrize("option", ["json", "png"])
def test_a_file_that_cannot_be_written_is_refused_before_the_work(option: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path, tmp_path / "file" / "b.json"):
        paths = {"json": None, "png": None, option: path}
        with pytest.raises(ConfigError) as error:
            bench.check_outputs(**paths)
        assert str(error.value) == (
            f"Cannot write {path}: expected the name of a file, in a folder that can be written to."
        )


def test_the_folder_of_a_file_to_write_is_made(tmp_path: Path) -> None:
    bench.check_outputs(tmp_path / "new" / "b.json", None)
    assert (tmp_path / "new").is_dir()


def test_what_to_measure_must_be_known() -> None:
    with pytest.raises(ConfigError, match=r"^There is no bench 'everything'; expected 'model'\.$"):
        CliRunner().invoke(APP, ["everything"], catch_exceptions=False)


def test_a_picture_needs_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^--png needs matplotlib; install 'qwen2-audio\[plot\]'"):
        bench.check_outputs(None, tmp_path / "x.png")


def test_options_of_the_command_reach_the_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[model.Options] = []

    def run(options: model.Options, progress: object) -> Report:
        seen.append(options)
        machine = {
            "ours": "1",
            "peer": None,
            "checkpoint": "c",
            "dtype": "fp32",
            "cpu": "x",
            "threads": 2,
            "torch": "2",
        }
        return Report(machine, [Row("load", 0.01234, "s")])

    monkeypatch.setattr(model, "run", run)
    ran = CliRunner().invoke(APP, ["model", "--repeats", "9", "--peer", "none"], catch_exceptions=False)
    assert (seen[0].repeats, seen[0].peer, seen[0].quick) == (9, "none", False)
    assert "12.3 ms" in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((2.0, "s", (1.8, 2.4)), "2 s ±15%"),
        ((0.0251, "s", None), "25.1 ms"),
        ((4.71, "tokens/s", (4.71, 4.71)), "4.71 tokens/s ±0%"),
        ((None, "GiB", None), ""),
    ],
)
def test_cells(arguments: tuple, text: str) -> None:
    assert cell(*arguments) == text
