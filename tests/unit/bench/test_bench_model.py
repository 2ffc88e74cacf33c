"""What is measured and how two sides become a row; the workers' stopwatch with a scripted side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qwen2_audio.bench import machine, model, worker
from qwen2_audio.bench.contestant import Features
from qwen2_audio.bench.inputs import clip, prompt
from qwen2_audio.bench.model import Measurement, Options, check_memory, compare, plan, row
from qwen2_audio.errors import CapacityError, ConfigError

SECONDS = Measurement("first token", "first_token", {"seconds": 3}, 3, limit=2.0)
RATE = Measurement("decode", "decode", {}, 3, "tokens/s", limit=1.0)


@given(ours=st.floats(1e-3, 1e3), peer=st.floats(1e-3, 1e3))
def test_a_ratio_above_one_means_that_ours_is_better(ours: float, peer: float) -> None:
    less = row(SECONDS, [[ours], [peer]], [[], []])
    more = row(RATE, [[ours], [peer]], [[], []])
    assert less.ratio == pytest.approx(peer / ours)
    assert more.ratio == pytest.approx(ours / peer)


def test_a_row_holds_medians_spreads_and_whether_the_limit_is_missed() -> None:
    got = row(SECONDS, [[1.0, 9.0, 2.0], [3.0, 3.5, 2.5]], [[7], [7]])
    assert (got.value, got.peer, got.ratio) == (2.0, 3.0, 1.5)
    assert (got.spread, got.peer_spread, got.note) == ((1.0, 9.0), (2.5, 3.5), "same token")
    assert got.missed
    assert not row(SECONDS, [[1.0], [2.0]], [[], []]).missed


def test_without_a_peer_there_is_no_ratio() -> None:
    got = row(SECONDS, [[1.0, 2.0, 3.0]], [[7]])
    assert (got.value, got.peer, got.ratio, got.missed) == (2.0, None, None, False)


def test_what_the_system_does_not_tell_is_left_empty() -> None:
    assert row(Measurement("peak memory", "memory", {}, 1, "GiB"), [[None], [None]], [[], []]).value is None


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


def test_the_plan_has_the_expected_ratios_and_quick_leaves_out_the_long_clips() -> None:
    limits = {line.name: line.limit for line in plan(Options())}
    assert limits == {
        "log-mel, 3 s clip": 3.0,
        "log-mel, 30 s clip": None,
        "encoder, 3 s clip": 7.0,
        "first token, 1 s clip": 3.0,
        "first token, 3 s clip": 2.0,
        "first token, 10 s clip": 1.0,
        "first token, 30 s clip": 1.0,
        "decode after a 3 s clip": 1.0,
    }
    repeats = {line.name: line.repeats for line in plan(Options(repeats=7))}
    assert (repeats["first token, 3 s clip"], repeats["first token, 30 s clip"]) == (7, 3)
    assert max(line.arguments["seconds"] for line in plan(Options(quick=True)) if line.op == "first_token") == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repeats": 0}, "repeats is 0; expected at least 1."),
        ({"threads": 0}, "threads is 0; expected at least 1."),
        ({"peer": "vllm"}, "peer is 'vllm'; expected one of transformers, none."),
        ({"model": Path("nowhere")}, "nowhere has no config.json; expected the folder of a Qwen2-Audio checkpoint."),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Options(**options)
    assert str(error.value) == message


def test_a_peer_that_is_asked_for_must_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^transformers is not installed; install 'qwen2-audio\[oracles\]' to comp"):
        model.run(Options(peer="transformers"))


def test_weights_that_do_not_fit_memory_are_refused_before_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_memory", lambda: 4_000_000_000)
    check_memory(4_000_000_000)
    with pytest.raises(CapacityError, match=r"^The bench holds 12\.2 GB .* but 4\.0 GB of memory are available; close"):
        check_memory(12_200_000_000)


def test_hardware_threads_of_one_core_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [f"processor: {n}\nphysical id: 0\ncore id: {n % 2}\n" for n in range(4)]
    (tmp_path / "cpuinfo").write_text("\n".join(blocks))
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    assert machine.physical_cores() == 2
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: {0, 2}, raising=False)
    assert machine.physical_cores() == 1


def test_the_prompt_is_the_documented_one() -> None:
    ids = prompt(101, vocab_size=156_032, audio_id=151_646)
    assert len(ids) == 133
    assert ids[:3] == [151644, 8948, 198]
    assert ids[20:121] == [151646] * 101
    assert (ids[19], ids[121], ids[-2]) == (151647, 151648, 77091)


@given(vocab=st.integers(50, 3000), tokens=st.integers(0, 9))
def test_a_small_vocabulary_gets_ids_it_has(vocab: int, tokens: int) -> None:
    ids = prompt(tokens, vocab_size=vocab, audio_id=vocab - 5)
    assert max(ids) < vocab
    assert ids.count(vocab - 5) == tokens


def test_a_clip_is_the_same_every_time() -> None:
    assert np.array_equal(clip(0.5), clip(0.5))
    assert clip(0.5).shape == (8000,)
    assert 0.1 < np.abs(clip(0.5)).max() < 1


class Scripted:
    """A side whose tokens come at known times."""

    def log_mel(self, sound: np.ndarray) -> Features:
        frames = len(sound) // 160
        return Features(torch.ones(1, 128, frames), torch.ones(1, frames, dtype=torch.int32))

    def generate(self, ids: torch.Tensor, features: Features, new_tokens: int, clock: worker.Stamps) -> torch.Tensor:
        clock.times += [0.0, 10.0, 10.5, 11.0]
        return torch.cat((ids, torch.arange(new_tokens)[None]), 1)


def test_decode_counts_neither_the_prompt_nor_the_first_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "contestant", lambda side: Scripted())
    assert worker.Session("ours").decode(1, 3) == {"value": 2.0, "check": [0, 1, 2]}
