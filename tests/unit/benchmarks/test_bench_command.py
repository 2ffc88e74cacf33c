"""`bench model` end to end on a tiny checkpoint, what the command refuses, and the workers' failures."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import main as bench
from benchmarks.engine import run as engine
from benchmarks.engine.options import Options as EngineOptions
from benchmarks.harness.worker_process import Worker
from benchmarks.kernels import run as kernels
from benchmarks.model import run as model
from qwen2_audio.bench.report import Report, Row
from qwen2_audio.errors import CapacityError, ConfigError, Qwen2AudioError
from qwen2_audio.evaluate.random_checkpoint import SHAPES

APP = typer.Typer(add_completion=False)
APP.command()(bench.command)
PEER = find_spec("transformers") is not None
LINES = ["load_s", "encoder_3s", "ttft_1s", "ttft_3s", "peak_gb", "second_question_s", "decode100"]
SHARED = ["import_s", "logmel_3s", "logmel_30s"]


def test_the_json_has_the_documented_shape(result: SimpleNamespace) -> None:
    assert result.exit_code == 0
    assert {"cpu", "cores", "threads", "torch", "date", "checkpoint", "isa"} <= set(result.data["machine"])
    assert result.data["machine"]["threads"] == 1
    for row in result.data["rows"]:
        assert {"name", "value", "unit", "peer", "ratio", "limit"} <= set(row)
    names = {f"checkpoint.{form}.{line}" for form in ("int4", "fp32") for line in (*LINES, "step_over_products")}
    names |= {f"checkpoint.fp32.{line}" for line in SHARED}
    assert {name for name in result.rows if not name.startswith("ceiling.")} == names
    assert {"ceiling.read_1t", "ceiling.fma_1t"} <= set(result.rows)
    assert all(row["value"] > 0 for row in result.rows.values())


@pytest.mark.skipif(not PEER, reason="transformers is not installed")
def test_both_sides_computed_the_same(result: SimpleNamespace) -> None:
    note = {name.rpartition(".")[2]: row["note"] for name, row in result.rows.items() if ".fp32." in name}
    assert note["logmel_3s"].startswith("same within")
    assert note["encoder_3s"].startswith("same within")
    assert note["ttft_3s"] == "same token"
    assert note["decode100"] == "same 9 tokens"
    alone = ("second_question_s", "step_over_products")
    compared = [row for name, row in result.rows.items() if name.startswith("checkpoint.") and not name.endswith(alone)]
    assert all(row["peer"] > 0 and row["ratio"] > 0 for row in compared)
    assert result.rows["checkpoint.int4.ttft_3s"]["note"] == ""


def test_tables_go_to_stdout_and_progress_to_stderr(result: SimpleNamespace) -> None:
    assert "checkpoint.int4.decode100" in result.stdout
    assert "ratio above 1 always means that ours is better" in " ".join(result.stdout.split())
    assert "Where our time goes, int4" in result.stdout
    assert "Where our time goes, fp32" in result.stdout
    assert "ttft_3s: warm-up" in result.stderr
    assert "quantising" in result.stderr
    assert "warm-up" not in result.stdout


def test_a_quantised_copy_is_made_once(result: SimpleNamespace, folder: Path, run_command) -> None:
    copy = folder.with_name("tiny-int4")
    before = (copy / "config.json").stat().st_mtime_ns
    again = run_command("model", "--model", copy, "--format", "int4", "--quick", "--repeats", "1", "--no-profile")
    assert (copy / "config.json").stat().st_mtime_ns == before
    assert "checkpoint.int4.ttft_3s" in again.rows
    assert "profile" not in again.data


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_the_picture_is_a_png_of_measured_points(result: SimpleNamespace) -> None:
    assert result.png.read_bytes().startswith(b"\x89PNG")
    points = {point["name"]: point for point in result.data["roofline"]["points"]}
    assert {"checkpoint.int4.decode.100", "checkpoint.fp32.prefill.3 s clip"} <= set(points)
    one = points["checkpoint.fp32.decode.100"]
    assert one["intensity"] == pytest.approx(0.5, rel=0.01)  # a product and a sum for four bytes
    assert one["gops"] > 0
    assert {"read", "fma"} <= set(result.data["roofline"]["ceilings"])


def test_the_profile_explains_the_first_token_and_a_decode_step(result: SimpleNamespace) -> None:
    for form in ("int4", "fp32"):
        stages = [stage for stage in result.data["profile"] if stage["format"] == form]
        ms = {stage["stage"].strip(): stage["ms"] for stage in stages}
        parts = ("log-mel", "encoder", "projector, embedding, merge", "prefill")
        assert sum(ms[name] for name in parts) == pytest.approx(ms["first token, 3 s clip"], rel=1e-6)
        (place,) = (i for i, stage in enumerate(stages) if stage["stage"] == "decode, a token at context 100")
        step, *of_step = stages[place : place + 5]
        assert sum(stage["ms"] for stage in of_step) == pytest.approx(step["ms"], rel=1e-6)
        assert [stage["stage"].strip() for stage in of_step] == [
            "attention's products", "MLP's products", "head's product", "everything else",
        ]  # fmt: skip
        assert step["unit"] == "GB/s"


def test_a_failed_order_is_told_in_one_sentence(tmp_path: Path) -> None:
    with Worker("ours", 1, module="model.worker") as worker:
        with pytest.raises(Qwen2AudioError, match=r"^The bench's ours side failed at 'load': NoCheckpointError: .*"):
            worker.ask("load", folder=str(tmp_path / "nowhere"))
        assert worker.ask("library")["value"] > 0  # and it goes on
        worker._process.kill()
        with pytest.raises(CapacityError, match=r"^The bench's ours side was killed at 'memory', most likely because"):
            worker.ask("memory")


def test_a_worker_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")
    with (
        Worker("ours", 1, module="model.worker") as worker,
        pytest.raises(Qwen2AudioError, match=r"side ended with exit status \d+ at 'load'"),
    ):
        worker.ask("load", folder="x")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["everything"],
            "There is no bench 'everything'; expected one of "
            "kernels, model, accuracy, train, engine, long, structured, jobs, ray.",
        ),
        (["model", "--isa", "avx2"], "--isa is an option of bench kernels; leave it out for bench model."),
        (["model", "--peer-python", "x"], "--peer-python is an option of bench kernels; leave it out for bench model."),
        (
            ["kernels", "--format", "int4"],
            "--format is an option of bench model, engine; leave it out for bench kernels.",
        ),
        (
            ["accuracy", "--quick"],
            "--quick is an option of bench kernels, model, train, engine, long, structured, jobs, ray; "
            "leave it out for bench accuracy.",
        ),
        (
            ["kernels", "--device", "cpu"],
            "--device is an option of bench model, engine; leave it out for bench kernels.",
        ),
        (
            ["model", "--device", "cpu", "--profile"],
            "--profile is an option of bench model; leave it out for bench model --device.",
        ),
        (["model", "--device", "cpu", "--png", "x"], "bench model --device draws no picture; leave --png out."),
        (["accuracy", "--png", "x"], "bench accuracy draws no picture; leave --png out."),
        (["train", "--png", "x"], "bench train draws no picture; leave --png out."),
        (["model", "--device", "tpu"], "device is 'tpu'; expected one of cuda, cpu."),
        (["kernels", "--no-profile"], "--profile is an option of bench model; leave it out for bench kernels."),
        (["model", "--shape", "2b"], "shape is '2b'; expected mid, 1b, full."),
        (
            ["model", "--shape", "1b", "--model", "x"],
            "--shape is for a random checkpoint and --model names one; leave one of the two out.",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        CliRunner().invoke(APP, arguments, catch_exceptions=False)
    assert str(error.value) == message


MACHINE = {"ours": "1", "peer": None, "checkpoint": "c", "dtype": "fp32", "cpu": "x", "threads": 2, "torch": "2"}


def test_every_option_is_documented_and_every_documented_option_is_there() -> None:
    page = (Path(__file__).parents[3] / "docs" / "performance.md").read_text(encoding="utf-8")
    section = re.search(r"^## Options\n(.*?)^## ", page, flags=re.S | re.M)
    assert section is not None
    rows = re.findall(r"^\| (`--.*?) \|", section[1], flags=re.M)
    taken = {option for param in typer.main.get_command(APP).params for option in param.opts if option != "what"}
    assert set(re.findall(r"--[a-z-]+", " ".join(rows))) == taken


def test_options_of_the_command_reach_the_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list = []

    def run(options: object, progress: object) -> Report:
        seen.append(options)
        return Report(MACHINE, [Row("load", 0.01234, "s")])

    monkeypatch.setattr(model, "run", run)
    monkeypatch.setattr(kernels, "run", run)
    arguments = ["model", "--repeats", "9", "--peer", "none", "--shape", "full", "--format", "int4,int8"]
    ran = CliRunner().invoke(APP, arguments, catch_exceptions=False)
    assert (seen[0].repeats, seen[0].peer, seen[0].quick, seen[0].profile) == (9, "none", False, True)
    assert (seen[0].shape, seen[0].formats) == (SHAPES["full"], ("int4", "int8"))
    assert "12.3 ms" in ran.stdout
    CliRunner().invoke(APP, ["kernels", "--isa", "all", "--quick"], catch_exceptions=False)
    assert (seen[1].isa, seen[1].quick, seen[1].shapes) == ("all", True, kernels.SHAPES)
    monkeypatch.setattr(engine, "run", run)
    arguments = ["engine", "--shape", "mid", "--format", "bf16", "--device", "cuda", "--quick", "--peer", "none"]
    CliRunner().invoke(APP, arguments, catch_exceptions=False)
    assert seen[2] == EngineOptions(shape=SHAPES["mid"], formats=("bf16",), device="cuda", quick=True, peer="none")
