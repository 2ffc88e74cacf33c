"""What is measured and how the sides become rows; the workers' stopwatch with a scripted side."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.harness import bars
from benchmarks.harness.prompt_ids import question_ids, random_ids
from benchmarks.harness.rows import compare
from benchmarks.harness.rows import row_with_peer as row
from benchmarks.model import run as model
from benchmarks.model.implementation import Features
from benchmarks.model.profile import Products
from benchmarks.model.random_past import random_past
from benchmarks.model.run import Measurement, Options, Side, plan, rows_of
from benchmarks.model.session import Session, TokenTimes
from benchmarks.model.worker import OurSession
from qwen2_audio.bench import machine
from qwen2_audio.bench.clips import clip
from qwen2_audio.checkpoint import memory
from qwen2_audio.checkpoint.config import Qwen2Config
from qwen2_audio.errors import CapacityError, ConfigError
from qwen2_audio.evaluate.random_checkpoint import SHAPES

NAME = "model1b.fp32.ttft_3s"  # expected to be twice as fast as the peer


@given(ours=st.floats(1e-3, 1e3), peer=st.floats(1e-3, 1e3))
def test_a_ratio_above_one_means_that_ours_is_better(ours: float, peer: float) -> None:
    less = row("x", "s", [[ours], [peer]], [[], []])
    more = row("x", "tokens/s", [[ours], [peer]], [[], []])
    assert less.ratio == pytest.approx(peer / ours)
    assert more.ratio == pytest.approx(ours / peer)


def test_a_row_holds_medians_spreads_and_whether_the_limit_is_missed() -> None:
    got = row(NAME, "s", [[1.0, 9.0, 2.0], [3.0, 3.5, 2.5]], [[7], [7]])
    assert (got.value, got.peer, got.ratio, got.ratio_limit) == (2.0, 3.0, 1.5, 2.0)
    assert (got.spread, got.peer_spread, got.note) == ((1.0, 9.0), (2.5, 3.5), "same token")
    assert got.missed
    assert not row(NAME, "s", [[1.0], [2.0]], [[], []]).missed


def test_the_bars_are_those_that_were_agreed() -> None:
    assert bars.bar("w4a8.decode.4096x11008") == 45
    assert bars.bar("w4a8.prefill780.11008x4096") == 300
    assert bars.bar("w8.prefill128.4096x4096") == 200
    assert bars.bar("w8.error.4096x4096") == 0.008
    assert (bars.bar("model.int4.decode100"), bars.bar("model.int4.ttft_30s")) == (4.5, 60)
    assert (bars.bar("model1b.int4.ttft_3s"), bars.bar("model.int8.peak_gb")) == (1.2, 11)
    assert bars.bar("fp16.decode.4096x4096") is None
    assert row("model.int4.ttft_3s", "s", [[8.5]], [[]]).missed


def test_every_bar_is_of_a_row_that_is_measured() -> None:
    lines = [line.key for line in plan(Options())] + ["load_s", "import_s", "step_over_products"]
    labels = {shape.label for shape in SHAPES.values()}
    names = {f"{label}.{form}.{line}" for label in labels for form in model.FORMATS for line in lines}
    asked = {name for name in (*bars.AT_LEAST, *bars.AT_MOST, *bars.RATIOS) if name.startswith("model")}
    assert {name for name in asked if ".train." not in name} <= names


def test_without_a_peer_there_is_no_ratio() -> None:
    got = row("x", "s", [[1.0, 2.0, 3.0]], [[7]])
    assert (got.value, got.peer, got.ratio, got.missed) == (2.0, None, None, False)


def test_what_the_system_does_not_tell_is_left_empty() -> None:
    assert row("x", "GB", [[None], [None]], [[], []]).value is None


def test_each_format_has_a_row_next_to_the_peer_and_only_fp32_is_compared() -> None:
    sides = [Side("int4", Path("a")), Side("fp32", Path("b")), Side("transformers", Path("b"))]
    line = Measurement("ttft_3s", "first_token", {}, 1)
    int4, fp32 = rows_of("x", line, sides, [[1.0], [2.0], [4.0]], [[5], [6], [6]])
    assert (int4.name, int4.value, int4.peer, int4.note) == ("x.int4.ttft_3s", 1.0, 4.0, "")
    assert (fp32.name, fp32.value, fp32.peer, fp32.note) == ("x.fp32.ttft_3s", 2.0, 4.0, "same token")


@pytest.mark.parametrize(
    ("ours", "peer", "note"),
    [
        ([], [], ""),
        ([5], [5], "same token"),
        ([5, 6], [5, 6], "same 2 tokens"),
        ([5, 6, 8], [5, 7, 8], "token 2 differs: 6, peer 7"),
        ([1.0, -2.0], [1.0, -2.000002], "same within 1e-06"),
        ([1.0, -2.0], [1.0, -2.2], "outputs differ by 9.1e-02"),
        ([1.0], [1.0, 2.0], "outputs of different sizes"),
        ([float("nan"), 1.0], [1.0, 1.0], "outputs differ by nan"),
    ],
)
def test_different_results_are_said_in_the_row(ours: list, peer: list, note: str) -> None:
    assert compare(ours, peer) == note


def test_the_plan_leaves_out_what_takes_long_when_quick() -> None:
    assert [line.key for line in plan(Options())] == [
        "logmel_3s", "logmel_30s", "encoder_3s", "ttft_1s", "ttft_3s", "ttft_10s", "ttft_30s", "peak_gb",
        "second_question_s", "decode100", "decode1000", "decode4000",
    ]  # fmt: skip
    repeats = {line.key: line.repeats for line in plan(Options(repeats=7))}
    assert (repeats["ttft_3s"], repeats["ttft_30s"], repeats["logmel_3s"]) == (7, 3, 9)
    quick = [line.key for line in plan(Options(quick=True))]
    assert "ttft_3s" in quick
    assert not {"ttft_10s", "ttft_30s", "decode1000", "decode4000"} & set(quick)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repeats": 0}, "repeats is 0; expected at least 1."),
        ({"threads": 0}, "threads is 0; expected at least 1."),
        ({"peer": "vllm"}, "peer is 'vllm'; bench model expects one of transformers, none."),
        ({"formats": ("int3",)}, "format is 'int3'; expected some of fp32,int8,int4, each once."),
        ({"formats": ("int4", "int4")}, "format is 'int4,int4'; expected some of fp32,int8,int4, each once."),
        ({"model": Path("nowhere")}, "nowhere has no config.json; expected the folder of a Qwen2-Audio checkpoint."),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Options(**options)
    assert str(error.value) == message


def test_a_quantised_checkpoint_is_measured_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"quantization_config": {"scheme": "int8"}}')
    Options(model=tmp_path, formats=("int8",))
    with pytest.raises(ConfigError, match=r"is quantised to int8; expected --format int8 for it, and no other\.$"):
        Options(model=tmp_path, formats=("int4",))
    with pytest.raises(ConfigError, match=r"^transformers does not read our quantised checkpoints; use --peer none\.$"):
        model.run(Options(model=tmp_path, formats=("int8",), peer="transformers"))


def test_a_peer_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^transformers is not installed; install 'qwen2-audio\[oracles\]'"):
        model.run(Options(peer="transformers"))


def test_weights_that_do_not_fit_memory_are_refused_before_loading(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 1000)
    with pytest.raises(CapacityError, match=r"^Loading fp32 to measure takes .* of memory, and 1 kB are available"):
        model.run(Options(model=folder, peer="none"))


def test_hardware_threads_of_one_core_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [f"processor: {n}\nphysical id: 0\ncore id: {n % 2}\n" for n in range(4)]
    (tmp_path / "cpuinfo").write_text("\n".join(blocks))
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    assert machine.physical_cores() == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2}, raising=False)
    assert machine.physical_cores() == 1


def test_the_prompt_is_the_documented_one() -> None:
    ids = question_ids(101, vocab_size=156_032, audio_id=151_646)
    assert len(ids) == 133
    assert ids[:3] == [151644, 8948, 198]
    assert ids[20:121] == [151646] * 101
    assert (ids[19], ids[121], ids[-2]) == (151647, 151648, 77091)


def test_another_question_differs_behind_the_clip_only() -> None:
    first, second = (question_ids(50, vocab_size=156_032, audio_id=151_646, question=n) for n in (0, 1))
    assert len(first) == len(second)
    differing = [place for place, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
    assert differing == [72, 73, 74, 75, 76]
    assert first[70] == 151648  # the end of the sound


@given(vocab=st.integers(50, 3000), tokens=st.integers(0, 9))
def test_a_small_vocabulary_gets_ids_it_has(vocab: int, tokens: int) -> None:
    ids = question_ids(tokens, vocab_size=vocab, audio_id=vocab - 5)
    assert max(ids) < vocab
    assert ids.count(vocab - 5) == tokens
    drawn = random_ids(40, vocab_size=vocab, audio_id=vocab - 5)
    assert len(drawn) == 40
    assert max(drawn) < vocab - 5


def test_a_past_is_the_same_for_both_sides_and_differs_between_layers() -> None:
    config = Qwen2Config(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2)
    first, second = (list(random_past(config, 100)) for _ in range(2))
    for (layer, keys, values), (_, same, _) in zip(first, second, strict=True):
        assert keys.shape == values.shape == (1, 2, 100, 8)
        assert torch.equal(keys, same)
        assert not torch.equal(keys, values)
        assert torch.isfinite(keys).all()
        assert layer in (0, 1)
    assert not torch.equal(first[0][1], first[1][1])


def test_a_clip_is_the_same_every_time() -> None:
    assert np.array_equal(clip(0.5), clip(0.5))
    assert clip(0.5).shape == (8000,)
    assert 0.1 < np.abs(clip(0.5)).max() < 1


def test_products_count_operations_and_bytes_and_run_every_linear() -> None:
    ran: list[int] = []
    linears = [torch.nn.Linear(8, n, bias=False) for n in (3, 5)]
    for linear in linears:
        linear.register_forward_hook(lambda module, x, y: ran.append(len(x[0])))
    products = Products([linears, [linears[0]]], rows=4)
    products.run()
    assert ran == [4, 4, 4]
    assert products.operations == 2 * 4 * 8 * (3 + 5 + 3)
    assert products.nbytes == 4 * 8 * (3 + 5 + 3)


class Scripted:
    """A side whose tokens come at known times."""

    def log_mel(self, sound: np.ndarray) -> Features:
        frames = len(sound) // 160
        return Features(torch.ones(1, 128, frames), torch.ones(1, frames, dtype=torch.int32))

    def generate_after_past(self, ids: torch.Tensor, new_tokens: int, clock: TokenTimes) -> torch.Tensor:
        assert ids.shape == (1, 100)
        clock.times += [0.0, 10.0, 10.5, 11.0]
        return torch.cat((ids, torch.arange(new_tokens)[None]), 1)


def test_decode_counts_neither_the_prompt_nor_the_first_token() -> None:
    session = Session(Scripted)  # type: ignore[arg-type]
    assert session.decode(100, 3) == {"value": 2.0, "check": [0, 1, 2]}


def test_a_second_question_costs_no_encoder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = OurSession()
    session.load(str(folder))
    encoded = []
    tower = session._ours.model.audio_tower
    encode = tower.encode_in_steps
    monkeypatch.setattr(tower, "encode_in_steps", lambda *args: encoded.append(1) or encode(*args))  # type: ignore[func-returns-value]
    with torch.no_grad():
        answers = [session.second_question(1.0) for _ in range(3)]
    assert encoded == [1]
    assert all(answer["value"] > 0 and len(answer["check"]) == 1 for answer in answers)
