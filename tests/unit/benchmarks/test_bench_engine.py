"""`bench engine` on a tiny checkpoint: every row, both ways the same tokens, and what the figures are made of."""

from __future__ import annotations

import contextlib
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.engine import draft
from benchmarks.engine import run as engine
from benchmarks.engine.options import Amounts, Options, clip_lengths
from benchmarks.engine.plot import better, by_running
from benchmarks.engine.run import latency_rows
from benchmarks.engine.scripts import script, with_errors
from benchmarks.engine.worker import Session
from benchmarks.harness import bars
from benchmarks.harness.engine_prompts import clip_prompt, random_text_prompt
from benchmarks.harness.id_tokenizer import ids_in
from benchmarks.harness.rows import row_of
from benchmarks.harness.timed_engine import ModelClock, Step, decode_rate
from qwen2_audio.bench.clips import clip_variant
from qwen2_audio.bench.report import Row
from qwen2_audio.checkpoint.config import Qwen2AudioConfig
from qwen2_audio.errors import ConfigError

PEER = find_spec("transformers") is not None
ASKED = {
    "engine.decode16_speedup": 2.5, "engine.run16_speedup": 1.3, "engine.nano16_speedup": 4.0,
    "engine.vs_transformers": 3.0, "engine.short_ttft_ratio": 1.0, "engine.second_turn_ratio": 5.0,
    "engine.overhead_pct": 5.0, "engine.nano_overhead_ms": 1.0,
}  # fmt: skip
OTHERS = {
    "engine.decode1", "engine.decode16", "engine.prefill", "engine.ttft_3s", "engine.ttft_10s", "engine.second_turn_s",
    "engine.lookup_transcript_speedup", "engine.lookup_chat_speedup", "engine.run16_s", "engine.alone16_s",
    "engine.peak_gb", "engine.draft50_speedup", "engine.draft80_speedup", "engine.draft95_speedup",
    "engine.nano_draft_speedup",
}  # fmt: skip


@pytest.fixture(scope="module")
def result(folder: Path, run_command) -> SimpleNamespace:
    return run_command("engine", "--model", folder, "--format", "fp32", "--quick", "--peer", "none")


@pytest.fixture(scope="module")
def session(folder: Path) -> Session:
    made = Session()
    made.load(str(folder), "cpu", "float32", 4096)
    return made


@pytest.mark.slow
def test_every_row_is_there_with_what_is_asked_of_it(result: SimpleNamespace) -> None:
    assert result.exit_code == 0
    asked = {name: limit for name, limit in ASKED.items() if name != "engine.vs_transformers"}
    assert {name: row["limit"] for name, row in result.rows.items() if row["limit"] is not None} == asked
    assert set(result.rows) == {*asked, *OTHERS}
    assert all(row["value"] > 0 for row in result.rows.values())
    assert result.rows["engine.run16_speedup"]["note"] == "16 of 16 answers the same, every token"
    assert result.rows["engine.nano16_speedup"]["note"] == "16 of 16 answers the same, every token"
    ratio = result.rows["engine.alone16_s"]["value"] / result.rows["engine.run16_s"]["value"]
    assert result.rows["engine.run16_speedup"]["value"] == pytest.approx(ratio)
    assert result.data["machine"]["dtype"] == "fp32 on cpu"
    assert result.png.read_bytes().startswith(b"\x89PNG")


def test_the_engine_and_generate_say_the_same(session: Session) -> None:
    asked: dict[str, Any] = {"seconds": [1.0, 2.0, 1.5], "variant": 3, "new_tokens": 7}
    at_once, in_turn = session.together(**asked), session.alone(**asked)
    assert at_once["check"] == in_turn["check"]
    assert [len(answer) for answer in at_once["check"]] == [7, 7, 7]


def test_the_peers_time_is_over_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    class Peer(contextlib.nullcontext):
        def ask(self, op: str, **arguments: object) -> dict:
            return {"together": {"value": 12.0}, "memory": {"value": 9.0}, "load": {}}[op]

    monkeypatch.setattr(engine, "Worker", lambda side, threads, module: Peer(Peer()))
    rows = [Row("engine.run16_s", 3.0, "s")]
    row = engine._measure_peer(Options(), Path("x"), Amounts.of(Options()), 1, (rows, lambda line: None))
    assert (row.name, row.value, row.limit) == ("engine.vs_transformers", 4.0, 3.0)
    assert row.note == "3.0 s in int4 against 12.0 s in float32 and 9.0 GB"


@pytest.mark.skipif(not PEER, reason="transformers is not installed")
def test_the_peer_answers_the_same_requests(session: Session, folder: Path) -> None:
    from benchmarks.peers.transformers_batch import PeerSession

    peer = PeerSession()
    peer.load(str(folder), "cpu", "float32")
    asked: dict[str, Any] = {"seconds": [1.0, 2.0], "variant": 3, "new_tokens": 5}
    assert peer.together(**asked)["check"] == session.together(**asked)["check"]


def test_decoding_is_measured_with_as_many_running_as_asked(session: Session) -> None:
    found = session.decode([4, 2, 1], [30, 40, 50, 60], 3, 0)["counts"]
    assert [one["running"] for one in found] == [4, 2, 1]
    for one in found:
        assert one["rate"] == pytest.approx(one["running"] / one["step"])
        assert 0 < one["beside"] < one["step"]


def test_first_tokens(session: Session) -> None:
    idle = session.first_token(1.0, 1)
    assert idle["chunk"] > 0 and idle["value"] > 0
    assert session.first_token_behind(1.0, 4.0, 0.0, 2)["value"] > 0
    assert session.first_token_behind(0.5, 1.0, 2.0, 3)["late"], "two seconds later, the long one is done"
    first, second = session.turns(2.0, 4, 1)["value"]
    assert first > 0 and second > 0


@pytest.mark.parametrize(("kind", "least", "most"), [("transcript", 0.5, 0.95), ("chat", 0.0, 0.15)])
def test_guesses_are_taken_where_the_answer_repeats_the_prompt(
    session: Session, kind: str, least: float, most: float
) -> None:
    assert session.speculate(kind, 0, 128)["accepted"] == 0
    assert least <= session.speculate(kind, 4, 128)["accepted"] <= most


def test_a_draft_that_is_told_the_answer(session: Session, folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    small = draft.make(folder, "fp32", lambda line: None)
    assert 0 < session.load_draft(str(small))["value"] < 2
    asked: dict[str, Any] = {"kind": "chat", "max_tokens": 41}
    found = [session.speculate(draft_tokens=4, right=right, **asked)["accepted"] for right in (0.0, 0.5, 0.9, 1.0)]
    assert found[0] == 0 and found == sorted(found) and found[1] > 0.2 and found[-1] == pytest.approx(0.8, abs=0.03)
    assert session.speculate(draft_tokens=0, **asked)["accepted"] == 0


def test_the_shape_of_a_draft() -> None:
    shape = draft.draft_shape(Qwen2AudioConfig())
    assert (shape.layers, shape.width, shape.heads, shape.vocab_size) == (16, 1024, 16, 151_936)
    answer = list(range(200))
    told = with_errors(answer, 0.2)
    assert sum(one != other for one, other in zip(answer, told, strict=True)) == 40
    assert with_errors(answer, 0.0) == answer and min(with_errors(answer, 1.0)) > 0


def test_scripts_are_what_they_say_they_are() -> None:
    asked, answer = script(Qwen2AudioConfig(), "transcript")
    spoken = asked[-len(answer) :]
    assert 0.9 < sum(one == other for one, other in zip(spoken, answer, strict=True)) / len(answer) < 1
    asked, answer = script(Qwen2AudioConfig(), "chat")
    assert len(answer) > 100 and len(asked) > 15


def test_requests_are_the_same_at_every_call_and_differ_by_variant() -> None:
    assert clip_lengths(16, 2, 15)[0] == 2 and clip_lengths(16, 2, 15)[-1] == 15 and clip_lengths(1, 2, 15) == [2]
    config = Qwen2AudioConfig()
    one, other = clip_prompt(config, clip_variant(2.0, 1)), clip_prompt(config, clip_variant(2.0, 2))
    assert one.ids == other.ids and one.digests != other.digests
    assert one.digests == clip_prompt(config, clip_variant(2.0, 1)).digests
    first, second = (random_text_prompt(config, 9, variant).ids for variant in (1, 2))
    assert random_text_prompt(config, 9, 1).ids == first != second


def test_the_clock_counts_the_module_alone() -> None:
    class Slow(torch.nn.Module):
        def forward(self, x: float) -> float:
            import time

            time.sleep(x)
            return x

    module = Slow()
    clock = ModelClock(module, torch.device("cpu"))
    module(0.02)
    module(0.03)
    assert 0.05 <= clock.seconds < 0.08


def test_a_rate_is_of_the_steps_that_only_decode() -> None:
    steps = [Step(0.1, 0, 0, 0, 4, 4), Step(0.3, 0, 0, 9, 4, 4), Step(0.2, 0, 0, 0, 3, 3), Step(0.1, 0, 0, 0, 4, 4)]
    assert decode_rate(steps, 4) == pytest.approx(40)
    assert decode_rate(steps, 7) is None
    assert ids_in("12 7 ") == [12, 7]


def test_the_ratio_of_a_short_request_is_to_twice_its_idle_time_and_a_chunk() -> None:
    class Scripted:
        def ask(self, op: str, **arguments: float) -> dict:
            answers: dict[str, dict] = {
                "first_token_behind": {"value": 1.5, "late": False},
                "turns": {"value": [3.0, 0.5]},
                "first_token": {"value": 0.5 if arguments.get("seconds") == 3 else 4.0, "chunk": 0.25},
            }
            return answers[op]

    found = {row.name: row for row in latency_rows(Scripted(), Amounts.of(Options()), lambda line: None)}  # type: ignore[arg-type]
    assert found["engine.short_ttft_ratio"].value == pytest.approx(1.5 / (2 * 0.5 + 0.25))
    assert found["engine.short_ttft_ratio"].missed
    assert found["engine.second_turn_ratio"].value == 6.0 and not found["engine.second_turn_ratio"].missed
    assert found["engine.ttft_30s"].value == 4.0


def test_what_is_asked_is_what_was_agreed() -> None:
    assert {name: bars.bar(name) for name in ASKED} == ASKED
    assert row_of("engine.run16_speedup", "x faster", [1.2, 1.1, 1.3]).missed
    assert not row_of("engine.run16_speedup", "x faster", [1.4]).missed
    assert row_of("engine.overhead_pct", "%", [5.1]).missed
    assert row_of("engine.peak_gb", "GB", [None]).value is None


def test_the_picture_shows_how_much_better_than_asked() -> None:
    assert better(Row("engine.run16_speedup", 2.6, "x faster", limit=1.3)) == pytest.approx(2)
    assert better(Row("engine.overhead_pct", 10.0, "%", limit=5.0)) == pytest.approx(0.5)
    rows = [Row("engine.decode16", 90.0, "tokens/s"), Row("engine.decode16_speedup", 3.0, "x faster")]
    assert by_running([*rows, Row("engine.prefill", 1.0, "tokens/s")]) == {16: 90.0}


def test_the_amounts() -> None:
    whole, quick = Amounts.of(Options()), Amounts.of(Options(quick=True))
    assert (len(whole.clips), whole.clips[0], whole.clips[-1], whole.new_tokens) == (16, 2, 15, 64)
    assert whole.running == [32, 16, 4, 1] and len(whole.contexts) == 32
    assert sorted(whole.contexts[:16]) == sorted(whole.contexts[16:])
    assert len(quick.clips) == 16 and quick.new_tokens < 64


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"repeats": 0}, "repeats is 0; expected at least 1."),
        ({"threads": 0}, "threads is 0; expected at least 1."),
        ({"peer": "vllm"}, "peer is 'vllm'; bench engine expects one of transformers, none."),
        ({"device": "tpu"}, "device is 'tpu'; bench engine expects one of cpu, cuda."),
        ({"formats": ("int4", "int8")}, "format is 'int4,int8'; bench engine expects one of fp32,bf16,int8,int4."),
        ({"model": Path("nowhere")}, "nowhere has no config.json; expected the folder of a Qwen2-Audio checkpoint."),
    ],
)
def test_options_that_cannot_work_are_one_sentence(options: dict, sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        Options(**options)
    assert str(error.value) == sentence


def test_a_peer_that_is_asked_for_and_absent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"transformers is not installed; install 'qwen2-audio\[oracles\]'"):
        engine.run(Options(model=folder, peer="transformers"))
