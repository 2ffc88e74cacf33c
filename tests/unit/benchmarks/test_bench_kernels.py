"""`bench kernels` on tiny products, its peer, the ceilings, the picture."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness import bars, ceilings
from benchmarks.harness.ceilings import Ceilings, Shares
from benchmarks.harness.roofline import save_png
from benchmarks.kernels import run as kernels
from benchmarks.kernels import worker as kernel_worker
from benchmarks.kernels.run import Options, run
from qwen2_audio.bench.report import Report, Row
from qwen2_audio.errors import ConfigError, Qwen2AudioError
from qwen2_audio.native import ops
from qwen2_audio.native.library import load

needs_kernels = pytest.mark.skipif(not ops.available(), reason="there are no native kernels here")
LIBRARY = load().library
FAST = {isa for isa in ("amx", "avx512", "avx2") if LIBRARY is not None and LIBRARY.qwa_supported(isa.encode())}
TINY: dict[str, Any] = {"shapes": ((128, 96), (64, 40)), "working_set": 1 << 16, "quick": True, "threads": 1}


def number(row: Row) -> float:
    assert row.value is not None
    return row.value


@pytest.fixture(scope="module")
def report() -> Report:
    if not ops.available():
        pytest.skip("there are no native kernels here")
    return run(Options(**TINY, peer="none", isa="all"))


def test_a_row_for_each_format_kind_and_instruction_set(report: Report) -> None:
    rows = {row.name: row for row in report.rows}
    for form in ("w4a8", "w8", "fp16"):
        assert rows[f"{form}.decode.64x40"].unit == "Gw/s"
        assert {rows[f"{form}.prefill{n}.64x40"].unit for n in (128, 780)} == {"GOP/s"}
        others = {name.partition("@")[2] for name in rows if name.startswith(f"{form}.decode.64x40@")}
        assert others == FAST - {report.machine["isa"]}
    assert all(number(row) > 0 and row.limit is None for row in report.rows)
    assert "GB/s" in rows["w4a8.decode.64x40"].note
    assert report.machine["isa"] in ("amx", "avx512", "avx2")
    assert not any("128x96" in name for name in rows), "quick means the smallest shape"


def test_errors_are_those_of_the_format(report: Report) -> None:
    rows = {row.name: number(row) for row in report.rows}
    assert 0.08 < rows["w4a8.error.64x40"] < 0.1
    assert 0.004 < rows["w8.error.64x40"] < 0.008
    assert rows["fp16.error.64x40"] < 3e-4
    for form in ("w4a8", "w8"):
        weights, activations = rows[f"{form}.error_weights.64x40"], rows[f"{form}.error_activations.64x40"]
        assert activations < 0.008
        total = (weights**2 + activations**2) ** 0.5
        assert rows[f"{form}.error.64x40"] == pytest.approx(total, rel=0.05)
    assert len(rows) == len(report.rows), "measured on one instruction set only: all compute the same"


def test_points_of_the_picture_say_how_often_a_byte_is_used(report: Report) -> None:
    points = {point["name"]: point for point in report.roofline["points"]}
    assert points["fp16.decode.64x40"]["intensity"] == pytest.approx(2 * 64 * 40 / (48 * 64 * 2 + 4 * 104))
    assert points["w4a8.prefill780.64x40"]["intensity"] > points["w4a8.decode.64x40"]["intensity"]


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_the_picture_is_a_png(report: Report, tmp_path: Path) -> None:
    save_png(report, tmp_path / "k.png")
    assert (tmp_path / "k.png").read_bytes().startswith(b"\x89PNG")


@needs_kernels
def test_decoding_goes_around_all_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    session = kernel_worker.Session(1)
    nbytes = session.prepare(4, 64, 128, 96, 30_000)["nbytes"]
    assert nbytes == 128 * 96 // 2 + 2 * 96 * 2
    assert len(session._layers) == 5
    assert len({layer.struct.codes for layer in session._layers}) == 5, "each lies elsewhere"
    linears = ops.linears
    monkeypatch.setattr(ops, "linears", lambda layers, x: seen.append(id(layers[0])) or linears(layers, x))  # type: ignore[func-returns-value]
    session.time(1, 0)
    session.time(1, 2)
    assert len(set(seen[:5])) == 5
    assert seen[5:] == seen[:2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repeats": 0}, "repeats is 0; expected at least 1."),
        ({"threads": 0}, "threads is 0; expected at least 1."),
        ({"peer": "transformers"}, "peer is 'transformers'; bench kernels expects one of onnxruntime, none."),
        ({"isa": "sse2"}, "isa is 'sse2'; expected one of amx, avx512, avx2, portable, all."),
        (
            {"peer_python": Path("nowhere/python")},
            "nowhere/python is no file; expected a Python interpreter that has onnxruntime.",
        ),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Options(**options)
    assert str(error.value) == message


def test_a_peer_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"^onnxruntime and onnx are not installed; install both, name an interpreter"
    ):
        run(Options(**TINY, peer="onnxruntime"))


@pytest.mark.skipif(find_spec("onnx") is not None, reason="onnx is installed")
def test_an_interpreter_without_the_peer_says_what_it_lacks() -> None:
    with pytest.raises(Qwen2AudioError, match=r"^The bench's onnxruntime side .* No module named 'onnx"):
        run(Options(**TINY, peer_python=Path(sys.executable)))


@needs_kernels
@pytest.mark.skipif(not all(map(find_spec, ("onnxruntime", "onnx"))), reason="onnxruntime or onnx is not installed")
def test_the_peer_takes_turns_with_ours() -> None:
    rows = {row.name: row for row in run(Options(**TINY)).rows}
    assert (rows["w4a8.decode.64x40"].ratio or 0) > 0
    assert rows["fp16.decode.64x40"].peer is None


def test_without_kernels_there_is_nothing_to_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWEN2_AUDIO_ISA", "torch")
    with pytest.raises(
        Qwen2AudioError, match=r"bench kernels has nothing to measure\. Native kernels are switched off"
    ):
        run(Options(**TINY, peer="none"))


@needs_kernels
def test_ceilings_are_measured_with_one_thread_and_with_all() -> None:
    found = ceilings.measure(2, repeats=2, buffer=1 << 22)
    assert set(found.read) == set(found.fma) == {1, 2}
    names = [row.name for row in found.rows()]
    assert names[:4] == ["ceiling.read_1t", "ceiling.read_2t", "ceiling.fma_1t", "ceiling.fma_2t"]
    assert all(0.1 < number(row) < 1e6 for row in found.rows())
    assert set(found.to_json()) >= {"read", "fma"}


def test_without_a_library_torch_measures_the_ceilings() -> None:
    found = ceilings._by_torch(1, repeats=2, buffer=1 << 22)
    assert (found.isa, found.int8) == ("torch", {})
    assert set(found.to_json()) == {"read", "fma"}


def test_a_rate_is_put_next_to_what_the_machine_can_do() -> None:
    shares = Ceilings("avx2", {2: [20e9, 30e9, 25e9]}, {2: [100e9]}, {2: [400e9]}).shares()
    assert shares.of_read(20e9) == "20.0 GB/s, 80% of memory"
    assert shares.of_arithmetic(300e9, integers=True) == "75% of 8-bit products"
    assert shares.of_arithmetic(50e9, integers=False) == "50% of fp32 products"
    assert Shares(1.0, 100e9, None).of_arithmetic(50e9, integers=True) == "50% of fp32 products"


def test_every_bar_is_of_a_product_that_is_measured() -> None:
    assert tuple(f"{inputs}x{outputs}" for inputs, outputs in kernels.SHAPES) == bars.SHAPES
    forms = {form.name for form in kernels.FORMATS}
    others = ("model", "engine", "long", "jobs", "structured", "decide", "embed")
    asked = [name for name in (*bars.AT_LEAST, *bars.AT_MOST) if not name.startswith(others)]
    assert {name.split(".")[0] for name in asked} <= forms
    kinds = {"decode", "error", *(f"prefill{rows}" for rows in kernels.PREFILLS)}
    assert {name.split(".")[1] for name in asked} <= kinds


def test_the_samples_of_a_worker_keep_their_threads() -> None:
    reply = {"isa": "avx2", "read": {"1": [1.0], "2": [2.0]}, "fma": {"2": [3.0]}, "int8": {}}
    assert Ceilings.of_reply(reply) == Ceilings("avx2", {1: [1.0], 2: [2.0]}, {2: [3.0]}, {})
