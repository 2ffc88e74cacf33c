"""`bench load` against a small server of our own that streams, and fails in every way there is."""

from __future__ import annotations

import base64
import json
import statistics
import threading
import wave
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit.sse_server import WORDS, Endpoint
from qwen2_audio.bench import load_client
from qwen2_audio.bench.load import Options, SentRequest, overhead_rows, percentiles, rows_of, run
from qwen2_audio.bench.load_plot import open_at
from qwen2_audio.bench.load_requests import arrivals, synthetic_clip
from qwen2_audio.errors import AudioError, CapacityError, ConfigError

FAST: dict[str, Any] = {"rate": 200.0, "requests": 4}


@pytest.fixture
def server() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    thread = threading.Thread(target=endpoint.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield endpoint
    endpoint.shutdown()
    thread.join()
    endpoint.server_close()


def rows(report) -> dict:
    return {row.name: row for row in report.rows}


def test_every_request_is_measured(server: Endpoint) -> None:
    server.pause = 0.03
    report = run(Options(server.url, requests=3, rate=20, max_tokens=9, api_key="secret"))
    found = rows(report)
    assert 0.03 <= found["load.ttft_p50"].value <= found["load.ttft_p99"].value
    gaps = [b - a for one in report.requests for a, b in pairwise(one.pieces)]
    assert len(gaps) == 6 and found["load.inter_token_p50"].value == pytest.approx(statistics.median(gaps))
    assert found["load.end_to_end_p50"].value >= 0.09
    assert found["load.errors"].value == 0
    assert found["load.requests"].note == "3 of 3 answered"
    span = max(one.ended for one in report.requests)
    assert found["load.tokens"].value == pytest.approx(3 * 7 / span)  # by the server's usage, not by pieces
    assert [len(one.pieces) for one in report.requests] == [len(WORDS)] * 3
    asked = server.asked[0]
    assert asked["headers"]["Authorization"] == "Bearer secret"
    assert {key: asked["body"][key] for key in ("model", "stream", "max_tokens", "temperature")} == {
        "model": "fake", "stream": True, "max_tokens": 9, "temperature": 0,
    }  # fmt: skip
    sound, text = asked["body"]["messages"][0]["content"]
    assert sound["type"] == "input_audio" and sound["input_audio"]["format"] == "wav" and text["type"] == "text"


def test_requests_are_sent_at_their_times_whoever_is_late(server: Endpoint, tmp_path: Path) -> None:
    server.pause = 0.6  # each takes 1.8 s, and they come every 25 ms
    (tmp_path / "a.wav").write_bytes(b"sound")
    report = run(Options(server.url, rate=40, requests=8, seed=3, clips=(tmp_path / "a.wav",)))
    due = arrivals(40, 8, 3)
    assert [one.due for one in report.requests] == due
    assert all(one.sent >= one.due for one in report.requests)
    assert max(one.sent for one in report.requests) < min(one.ended for one in report.requests)
    late = float(np.percentile([one.sent - one.due for one in report.requests], 99))
    assert rows(report)["load.late_p99"].value == pytest.approx(late)
    assert max(open_at(report.requests)[1]) == 8
    assert open_at(report.requests)[1][-1] == 0


def test_arrivals_are_a_poisson_process_by_its_seed() -> None:
    times = arrivals(5.0, 4000, 1)
    gaps = [b - a for a, b in pairwise(times)]
    assert times[0] == 0 and times == sorted(times)
    assert sum(gaps) / len(gaps) == pytest.approx(1 / 5, rel=0.05)
    assert sum(gap > 1 / 5 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.03)  # 1 / e
    assert arrivals(5.0, 10, 1) == times[:10] != arrivals(5.0, 10, 2)


def test_errors_are_counted_by_kind_and_do_not_count_as_answers(server: Endpoint) -> None:
    server.faults = ["429", "cut", "error", "garbage", "unfinished", "plain", "500", "429"]
    report = run(Options(server.url, rate=5, requests=9))
    kinds = Counter(one.error for one in report.requests)  # who comes first is not certain on a busy machine
    assert kinds.pop("cut off", 0) + kinds.pop("connection", 0) == 1
    assert kinds == {
        "HTTP 429": 2, "error event": 1, "not HTTP": 1, "no finish_reason": 1, "HTTP 500": 1, None: 2,
    }  # fmt: skip
    found = rows(report)
    assert found["load.errors"].value == 7
    assert "HTTP 429: 2" in found["load.errors"].note and "; the first: " in found["load.errors"].note
    assert found["load.requests"].note == "2 of 9 answered"


def test_nobody_answers(server: Endpoint) -> None:
    server.faults = ["500"] * 4
    found = rows(run(Options(server.url, **FAST)))
    assert found["load.ttft_p99"].value is None
    assert "load.tokens" not in found


def test_our_server_tells_what_it_added(server: Endpoint) -> None:
    name = "qwen2_audio_time_to_first_token_seconds"
    sent = [SentRequest(0.0, 1.0, [1.5]), SentRequest(0.0, 2.0, [2.1])]
    before = {f"{name}_sum": 1.0, f"{name}_count": 3.0}
    (row,) = overhead_rows(sent, before, {f"{name}_sum": 1.4, f"{name}_count": 5.0})
    assert row.value == pytest.approx(0.3 - 0.2)
    assert overhead_rows(sent, before, {f"{name}_sum": 1.4, f"{name}_count": 6.0}) == []  # others asked as well
    assert overhead_rows(sent, {}, {}) == []
    server.metrics = f'{name}_bucket{{le="0.1"}} 2.0\n{name}_count 4\n{name}_sum 2e-3\n'
    assert "load.server_overhead_mean" not in rows(run(Options(server.url, **FAST)))  # it counted none of these


def test_clips_of_files_are_sent_as_they_are(server: Endpoint, tmp_path: Path) -> None:
    (tmp_path / "a.MP3").write_bytes(b"one")
    (tmp_path / "b.flac").write_bytes(b"two")
    clips = (tmp_path / "a.MP3", tmp_path / "b.flac")
    run(Options(server.url, rate=20, requests=3, clips=clips))
    sent = [one["body"]["messages"][0]["content"][0]["input_audio"] for one in server.asked]
    assert [(base64.b64decode(one["data"]), one["format"]) for one in sent] == [
        (b"one", "mp3"), (b"two", "flac"), (b"one", "mp3"),
    ]  # fmt: skip
    with pytest.raises(AudioError, match=r"Cannot read nowhere\.wav: No such file"):
        run(Options(server.url, clips=(Path("nowhere.wav"),)))


def test_synthetic_clips_differ_and_come_again_with_their_seed(tmp_path: Path) -> None:
    one, other = synthetic_clip(0, 0), synthetic_clip(1, 0)
    assert one == synthetic_clip(0, 0) != other
    assert synthetic_clip(0, 1) != one
    (tmp_path / "x.wav").write_bytes(base64.b64decode(one.data))
    with wave.open(str(tmp_path / "x.wav")) as file:
        assert 2 <= file.getnframes() / file.getframerate() <= 10


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"])
def test_a_url_with_or_without_v1(url: str) -> None:
    assert load_client.Endpoint.of(url) == load_client.Endpoint("h", 1, False, "")
    assert load_client.Endpoint.of("https://h/a/v1").head("GET", "/v1/x", 0).startswith(b"GET /a/v1/x HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"url": "ftp://h"}, "url is 'ftp://h'; expected http://HOST:PORT or https://HOST."),
        ({"rate": 0.0}, "rate is 0; expected requests a second, more than 0."),
        ({"requests": 0}, "requests is 0; expected at least 1."),
        ({"max_tokens": 0}, "max_tokens is 0; expected at least 1."),
    ],
)
def test_options_that_cannot_work_are_one_sentence(options: dict, sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        Options(**options)
    assert str(error.value) == sentence


def test_a_server_that_is_not_there_or_lists_no_model(server: Endpoint) -> None:
    server.models = False
    with pytest.raises(ConfigError, match=r"/v1/models gave HTTP 404 .* name the model with --model\."):
        run(Options(server.url))
    run(Options(server.url, model="mine", **FAST))
    assert server.asked[0]["body"]["model"] == "mine"
    with pytest.raises(CapacityError, match=r"^Nobody answers at http://127\.0\.0\.1:9 "):
        run(Options("http://127.0.0.1:9"))


def test_percentiles() -> None:
    assert [row.value for row in percentiles("x", list(range(101)), "")] == [50, 90, 99]
    assert [row.value for row in percentiles("x", [], "")] == [None] * 3
    assert {row.name for row in rows_of([SentRequest(0.0, 0.0, [1.0], 2.0, 1, "stop")])} >= {
        "load.ttft_p50",
        "load.errors",
    }


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_the_command_writes_json_and_a_picture(server: Endpoint, tmp_path: Path) -> None:
    import typer
    from typer.testing import CliRunner

    from qwen2_audio.cli import bench

    app = typer.Typer()
    app.command()(bench.command)
    server.faults = ["500"]
    files = ["--json", str(tmp_path / "l.json"), "--png", str(tmp_path / "l.png")]
    ran = CliRunner().invoke(
        app, ["load", "--url", server.url, "--rate", "50", "--requests", "3", *files], catch_exceptions=False
    )
    assert ran.exit_code == 0 and "load.ttft_p50" in ran.stdout and "3 of 3 sent" in ran.stderr
    data = json.loads((tmp_path / "l.json").read_text())
    assert len(data["requests"]) == 3 and [one["error"] for one in data["requests"]].count("HTTP 500") == 1
    assert (tmp_path / "l.png").read_bytes().startswith(b"\x89PNG")
