"""`bench throughput` on the tiny checkpoint: every row, from answers of the length that was asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import qwen2_audio as qa
from qwen2_audio.api.chat import AudioChat
from qwen2_audio.bench import throughput
from qwen2_audio.bench.throughput import Options, run
from qwen2_audio.cli.main import run as run_cli
from qwen2_audio.types import Completion

OPTIONS = Options(requests=3, max_tokens=6, repeats=2)
ROWS = {
    "throughput.ttft_3s": "s", "throughput.ttft_10s": "s", "throughput.ttft_30s": "s", "throughput.decode": "tokens/s",
    "throughput.requests": "requests/s", "throughput.audio": "s/s", "throughput.tokens": "tokens/s",
    "throughput.peak_gb": "GB",
}  # fmt: skip


@pytest.fixture
def chat(tiny_checkpoint: Path) -> Iterator[AudioChat]:
    loaded = qa.load(tiny_checkpoint, device="cpu", dtype="float32")
    yield loaded
    loaded.service().close()


@pytest.fixture
def answers(chat: AudioChat, monkeypatch: pytest.MonkeyPatch) -> list[list[Completion]]:
    """The answers to every call of `chat` (a list of one) and `batch`."""
    calls: list[list[Completion]] = []
    ask, ask_all = chat.chat, chat.batch
    monkeypatch.setattr(chat, "chat", lambda *arguments: calls.append([ask(*arguments)]))
    monkeypatch.setattr(chat, "batch", lambda *arguments: calls.append(ask_all(*arguments)))
    return calls


def test_every_row_is_measured(chat: AudioChat, answers: list[list[Completion]]) -> None:
    lines: list[str] = []
    report = run(OPTIONS, chat, lines.append)
    rows = {row.name: row for row in report.rows}
    assert {name: row.unit for name, row in rows.items()} == ROWS
    values = {name: row.value for name, row in rows.items() if row.value is not None}
    assert all(values[name] > 0 for name in rows if name != "throughput.decode")
    assert rows["throughput.ttft_3s"].spread is not None and rows["throughput.peak_gb"].spread is None
    requests = values["throughput.requests"]
    assert values["throughput.tokens"] == pytest.approx(6 * requests)
    assert values["throughput.audio"] == pytest.approx((2 + 8.5 + 15) / 3 * requests)
    assert report.machine["dtype"] == "float32 on cpu" and report.machine["checkpoint"] == chat.name
    assert lines[:3] == [f"throughput.ttft_3s: {turn}" for turn in ("warm-up", "1 of 2", "2 of 2")]


def test_answers_have_the_length_that_was_asked_for_and_no_clip_comes_twice(
    chat: AudioChat, answers: list[list[Completion]]
) -> None:
    run(OPTIONS, chat)
    lengths = [[answer.usage.completion_tokens for answer in call] for call in answers]
    assert lengths == [[1]] * 9 + [[1], [6]] * 3 + [[6, 6, 6]] * 3
    assert [round(call[0].heard[0].seconds) for call in answers[:9]] == [3] * 3 + [10] * 3 + [30] * 3
    assert [round(answer.heard[0].seconds, 1) for answer in answers[-1]] == [2.0, 8.5, 15.0]
    assert chat.service().stats().clips_cached == 0


def test_decoding_counts_what_a_long_answer_takes_longer(chat: AudioChat, monkeypatch: pytest.MonkeyPatch) -> None:
    stopwatch = throughput._Stopwatch(OPTIONS, chat, lambda line: None)
    monkeypatch.setattr(stopwatch, "_answer_seconds", lambda length, tokens: 1.0 + 0.1 * tokens)
    assert stopwatch.decode_row().value == pytest.approx(10.0)
    monkeypatch.setattr(stopwatch, "_answer_seconds", lambda length, tokens: 1.0)
    assert stopwatch.decode_row().value is None  # as long as one token: nothing can be said


def test_the_first_measurement_warms_up_and_does_not_count(chat: AudioChat) -> None:
    measured = iter([9.0, 1.0, 2.0])
    assert throughput._Stopwatch(OPTIONS, chat, lambda line: None)._repeat("x", measured.__next__) == [1.0, 2.0]


def test_a_quantised_model_is_named_by_its_scheme(tiny_checkpoint: Path) -> None:
    chat = qa.load(tiny_checkpoint, device="cpu", quantize="int8")
    assert throughput._format_of(chat) == "int8"


def test_the_command_writes_a_table_and_json(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new" / "t.json"
    arguments = ["--model", tiny_checkpoint, "--requests", "2", "--max-tokens", "4", "--repeats", "1", "--json", file]
    assert run_cli(["bench", "throughput", *map(str, arguments)]) == 0
    out, err = capsys.readouterr()
    assert "throughput.requests" in out and "peer" not in out and "limit" not in out
    assert "throughput.decode: 1 of 1" in err and "throughput.decode: 1 of 1" not in out
    data = json.loads(file.read_text(encoding="utf-8"))
    assert [row["name"] for row in data["rows"]] == list(ROWS)
    assert {"cpu", "cores", "threads", "torch", "date", "checkpoint"} <= set(data["machine"])
    assert {"name", "value", "unit", "peer", "ratio", "limit"} <= set(data["rows"][0])
