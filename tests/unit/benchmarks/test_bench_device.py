"""`bench model --device` on the CPU with a tiny shape: the orders a GPU would get, and what is made of the replies."""

from __future__ import annotations

import math
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from benchmarks import main as bench
from benchmarks.harness.devices import device_timed, random_model
from benchmarks.harness.engine_prompts import random_text_prompt
from benchmarks.harness.timed_engine import ModelClock, TimedEngine
from benchmarks.model import device_run as device
from benchmarks.model.device_run import Amounts, Options, rows
from benchmarks.model.device_worker import Session, _greedy
from qwen2_audio.engine.engine import EngineSettings
from qwen2_audio.engine.request import RequestHandle
from qwen2_audio.errors import ConfigError, Qwen2AudioError
from qwen2_audio.evaluate import random_checkpoint as checkpoint
from qwen2_audio.evaluate.random_checkpoint import Shape

TINY = Shape(2, 64, 2, 128, 2, 64, 2, 128, 1000, 990, label="tiny")
APP = typer.Typer()
APP.command()(bench.command)
PEER = find_spec("transformers") is not None
NO_GPU = not torch.cuda.is_available()
LOAD: dict[str, Any] = {"shape": asdict(TINY), "device": "cpu", "dtype": "bfloat16", "kv_tokens": 2048, "sequences": 4}
LOADED: dict[str, Any] = {}  # what the session answered


@pytest.fixture(scope="module")
def session() -> Session:
    with torch.no_grad():
        made = Session()
        LOADED.update(made.load(**LOAD))
        return made


# -- our side


def test_the_model_is_made_in_its_dtype_and_knows_what_a_step_reads(session: Session) -> None:
    model = session._model
    assert {one.dtype for one in model.parameters()} == {torch.bfloat16} and not model.training
    assert torch.get_default_dtype() == torch.float32
    text, width = TINY, TINY.width
    layer = 4 * width**2 + 3 * width + 3 * width * text.ffn + 2 * width
    expected = text.layers * layer + width + text.vocab_size * width  # without the embedding
    assert LOADED["weights"] == 2 * expected
    assert LOADED["position"] == 2 * 2 * text.layers * width
    assert LOADED["cache"] == 2048 * LOADED["position"]
    assert LOADED["device"] == "cpu"


def test_the_default_dtype_comes_back_whatever_happens() -> None:
    with pytest.raises(ZeroDivisionError):
        random_model(lambda: 1 / 0, torch.device("cpu"), torch.bfloat16)
    assert torch.get_default_dtype() == torch.float32


@torch.no_grad()
def test_decoding_first_tokens_and_bandwidth(session: Session) -> None:
    for running in (1, 4):
        assert session.decode(running, 40, 5, running)["value"] > 0
        assert session._engine.idle and session._engine._scheduler.block_manager.used == 0
    encoded = session._engine.stats.clips_encoded
    assert session.first_token(1.0, 1)["value"] > 0
    assert session.first_token(1.0, 1)["value"] > 0
    assert session._engine.stats.clips_encoded == encoded + 2, "nothing is kept for the next time"
    assert len(session.bandwidth(2**16, 3)["value"]) == 3
    assert session.memory()["value"] > 0


@torch.no_grad()
def test_what_fails_on_the_way_is_told(session: Session) -> None:
    with pytest.raises(Qwen2AudioError, match="context"):
        session.decode(1, 9000, 5, 1)
    session._model.language_model.model.norm.weight.fill_(math.nan)
    with pytest.raises(Qwen2AudioError, match="not numbers"):
        session.decode(2, 40, 5, 1)
    with pytest.raises(Qwen2AudioError, match="not numbers"):
        session.first_token(1.0, 1)
    session._model.language_model.model.norm.weight.fill_(1.0)


def test_the_stopwatch_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    with device_timed(torch.device("cpu")) as timer:
        pass
    assert 0 < timer.seconds < 0.1


@torch.no_grad()
def test_where_no_clock_may_listen_the_engine_says_how_long_the_model_took(session: Session) -> None:
    """The engine benchmark on a GPU: graphs call no forward."""
    clock = ModelClock(session._model.language_model, torch.device("cuda"))
    assert "forward" not in vars(session._model.language_model)
    engine = TimedEngine(session._model, clock, EngineSettings(kv_tokens=256))
    engine.submit(random_text_prompt(session._config, 20, 1), _greedy(3), RequestHandle(1, engine.cancel))
    while not engine.idle:
        engine.step()
    assert all(0 < step.model_seconds < step.seconds for step in engine.steps)


# -- the table


OURS = {
    "weights": 10e9, "position": 5e5, "cache": 1e9, "device": "NVIDIA X", "bandwidth": [3e3, 4e3, 5e3],
    "decode1": [300.0, 350.0, 340.0], "decode8": [2000.0], "decode32": [3000.0, 4000.0, 5000.0],
    "ttft_3s": [0.012, 0.016, 0.017], "ttft_30s": [0.04], "peak_gb": [20.0],
}  # fmt: skip
THEIRS = {
    "decode1": [70.0],
    "decode8": [400.0],
    "decode32": [1000.0],
    "ttft_3s": [0.1],
    "ttft_30s": [0.2],
    "peak_gb": [40.0],
}


def judged(monkeypatch: pytest.MonkeyPatch) -> Options:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return Options()


def test_rates_are_held_to_the_bandwidth_of_the_same_run(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        row.name.removeprefix("model.bf16.cuda."): row for row in rows(judged(monkeypatch), Amounts(), OURS, THEIRS)
    }
    most = 4e12 / (10e9 + 800 * 5e5)
    assert found["decode1"].value == 340 and found["decode1"].limit == pytest.approx(0.85 * most)
    assert found["decode1"].note.startswith(f"{340 / most:.0%} of the {most:,.0f} that bandwidth allows")
    assert found["decode1"].spread == (300, 350) and found["decode1"].ratio == pytest.approx(340 / 70)
    assert found["decode1"].ratio_limit == 5 and found["decode1"].missed  # by the ratio
    assert found["decode32"].limit == pytest.approx(0.6 * 32 * 4e12 / (10e9 + 32 * 800 * 5e5))
    assert found["decode8"].limit is None and found["decode8"].ratio == 5
    assert (found["ttft_3s"].limit, found["ttft_30s"].limit) == (0.015, 0.05)
    assert found["ttft_3s"].missed and not found["ttft_30s"].missed
    assert found["ttft_30s"].ratio == pytest.approx(5)
    assert (found["peak_gb"].value, found["peak_gb"].peer, found["peak_gb"].ratio) == (20, 40, 2)
    assert found["bandwidth"].value == 4000


def test_other_shapes_and_devices_are_held_to_nothing() -> None:
    made = list(rows(Options(device="cpu", shape=TINY), Amounts(), OURS, {}))
    assert all(row.limit is row.ratio_limit is row.peer is row.ratio is None for row in made)
    assert {row.name for row in made} >= {"tiny.bf16.cpu.decode32", "tiny.bf16.cpu.peak_gb"}


# -- the command


@pytest.mark.slow
def test_the_command_does_all_of_it(run_command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(checkpoint.SHAPES, "mid", TINY)
    out = CliRunner().invoke(
        APP,
        ["model", "--device", "cpu", "--shape", "mid", "--quick", "--repeats", "1", "--threads", "1"],
        catch_exceptions=False,
    )
    assert out.exit_code == 0
    for name in ("bandwidth", "decode1", "decode4", "ttft_3s", "peak_gb"):
        assert f"tiny.bf16.cpu.{name}" in out.stdout
    assert "that bandwidth allows" in " ".join(out.stdout.split())
    assert ("transformers: decode4: 1 of 1" in out.stderr) == PEER


@pytest.mark.skipif(not PEER, reason="transformers is not installed")
def test_the_peer_is_asked_the_same() -> None:
    from benchmarks.peers.transformers_device import PeerSession

    with torch.no_grad():
        peer = PeerSession()
        peer.load(**LOAD)
        assert {one.dtype for one in peer._model.parameters()} == {torch.bfloat16}
        ours = sum(math.prod(size) for size in checkpoint._sizes(peer._config).values())
        assert sum(one.numel() for one in peer._model.parameters()) == ours
        assert peer.decode(2, 40, 8, 1)["value"] != 0
        assert peer.first_token(1.0, 1)["value"] > 0
        assert peer.memory()["value"] > 0


@pytest.mark.skipif(not NO_GPU, reason="a GPU is here")
@pytest.mark.parametrize("arguments", [["model", "--device", "cuda"], ["engine", "--device", "cuda"]])
def test_without_a_gpu_that_is_said_before_any_work(arguments: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        CliRunner().invoke(APP, arguments, catch_exceptions=False)
    assert str(error.value) == (
        f"device is 'cuda', and torch {torch.__version__} sees no NVIDIA GPU; run this on a machine with one and "
        "with a CUDA build of torch, or use --device cpu."
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repeats": 0}, "repeats is 0; expected at least 1."),
        ({"peer": "onnx"}, "peer is 'onnx'; bench model expects one of transformers, none."),
        ({"formats": ("int4",)}, "format is 'int4'; bench model --device expects one of bf16, fp16, fp32."),
        ({"formats": ("bf16", "fp32")}, "format is 'bf16,fp32'; bench model --device expects one of bf16, fp16, fp32."),
    ],
)
def test_options_that_cannot_work(options: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Options(**{"device": "cpu", **options})
    assert str(error.value) == message


def test_a_peer_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="transformers is not installed"):
        device.run(Options(device="cpu", shape=TINY, peer="transformers"))
    assert not device._peer(Options(device="cpu"))
