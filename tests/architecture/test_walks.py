"""The walks of ARCHITECTURE.md against what really runs: each lists files in the order in which they are first called.

A new walk needs a heading with a numbered list of files in ARCHITECTURE.md, and a test that runs its code, once to warm
up and once under `traced`, and calls `check_walk`.
"""

import base64
import json
import re
import sys
import threading
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import qwen2_audio as qa
from qwen2_audio.engine.scheduler import StepSizeController

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "qwen2_audio"


@contextmanager
def traced() -> Iterator[dict[str, str]]:
    """The package's files whose functions are called meanwhile, in the order of their first call, each with that
    function's name; in this thread and in threads that start meanwhile. `clear()` it to forget a warm-up."""
    files: dict[str, str] = {}
    prefix = f"{PACKAGE}/"

    def on_call(frame, event, _):
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(prefix) and frame.f_code.co_name != "<module>":
            files.setdefault(name.removeprefix(prefix), frame.f_code.co_qualname)

    before = sys.getprofile()
    threading.setprofile(on_call)
    sys.setprofile(on_call)
    try:
        yield files
    finally:
        sys.setprofile(before)
        threading.setprofile(before)


def settle(trace: dict[str, str]) -> None:
    """Forget a warm-up, once no thread runs any more of it, as the engine's does after an answer's last token."""
    for _ in range(40):
        trace.clear()
        time.sleep(0.25)
        if not trace:
            return
    pytest.fail(f"still running after ten seconds: {files_of(trace)}")


def files_of(trace: dict[str, str]) -> list[str]:
    """The files of a trace by their paths in the package, "train/loop.py" for example, in the order of first call."""
    return list(trace)


def rooms_of(trace: dict[str, str]) -> set[str]:
    """The folders of a trace; "." is the package itself."""
    return {str(Path(file).parent) for file in trace}


def walk_of(heading: str) -> list[str]:
    """The files in the numbered list under a heading of ARCHITECTURE.md."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    section = re.search(rf"^##+ {re.escape(heading)}$(.*?)(?=^##|\Z)", text, flags=re.M | re.S)
    assert section is not None, f"ARCHITECTURE.md has no heading {heading!r}"
    items = re.findall(r"^(\d+)\. `([\w/]+\.py)` \S", section[1], flags=re.M)
    assert [int(number) for number, _ in items] == list(range(1, len(items) + 1)), f"{heading}: not numbered from 1"
    return [file for _, file in items]


def check_walk(heading: str, trace: dict[str, str]) -> None:
    """Every file that the walk names is there, runs, and stands in the order of first calls."""
    walk, files = walk_of(heading), files_of(trace)
    assert walk, f"{heading}: names no file"
    assert [file for file in walk if not (PACKAGE / file).is_file()] == [], f"{heading}: named but not there"
    assert [file for file in walk if file not in files] == [], f"{heading}: named but not called"
    assert walk == sorted(walk, key=files.index), f"{heading}: not in the order of first calls"


@pytest.fixture
def a_wave(tmp_path):
    """Half a second at 8 kHz, so that it is decoded and resampled."""
    samples = 0.3 * np.sin(2 * np.pi * 440 * np.arange(4000) / 8000)
    with wave.open(str(tmp_path / "clip.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return tmp_path / "clip.wav"


def test_a_training_row(a_wave, tmp_path):
    """From its line of JSON to the optimiser's step; the model is loaded and the batches are planned before."""
    from qwen2_audio.train import loop, optim, sft
    from qwen2_audio.train.config import TrainConfig, from_table
    from qwen2_audio.train.feed import Position, steps_of_data
    from qwen2_audio.train.start import set_up

    content = [{"type": "audio", "audio": str(a_wave)}, {"type": "text", "text": "What is that?"}]
    row = {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "A tone."}]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    table = {"output": str(tmp_path / "run"), "device": "cpu", "data": {"train": str(tmp_path / "rows.jsonl")}}
    task = sft.task_of(set_up(from_table(TrainConfig, {"model": str(qa.nano_path()), **table})))
    optim.prepare(task.model, task.config)
    optimiser = optim.optimiser(task.model, task.config.optim)
    optim.training_mode(task.model, task.config)

    def step(number):
        return loop.train_step(task, optimiser, next(steps_of_data(task.train, Position(number, 0), 1)), number, 2)

    step(0)
    with traced() as trace:
        assert step(1)["count"] > 1
    assert len(rooms_of(trace)) <= 9, sorted(rooms_of(trace))
    assert {room.split("/")[0] for room in rooms_of(trace)} & {"api", "engine", "generate", "serve", "cli"} == set()
    check_walk("A training row", trace)


def test_a_waveform(monkeypatch):
    """From `m.stream` to the first text about a new clip; the engine's thread starts under the trace."""
    # A busy machine would have the prompt computed in chunks, the last of which may be short enough for other code.
    monkeypatch.setattr(StepSizeController, "learn", lambda self, tokens, seconds: None)
    one_token = qa.SamplingParams(max_tokens=1)  # or the engine might go on while the first text is read
    sound = {clip: str(qa.nano_path() / "clips" / f"{clip}.wav") for clip in ("dog", "rain", "bell")}
    with traced() as trace:
        chat = qa.load()
        for clip in ("dog", "rain"):  # warm
            list(chat.stream([qa.user(audio=sound[clip])], one_token))
        question = [qa.user(audio=sound["bell"])]
        settle(trace)
        assert "".join(chunk.text for chunk in chat.stream(question, one_token))
    assert len(files_of(trace)) <= 32, "\n".join(files_of(trace))
    check_walk("A waveform through m.chat", trace)


def test_an_http_request():
    """A streamed chat completion with a clip in base64."""
    from starlette.testclient import TestClient

    from qwen2_audio.api.service import Service
    from qwen2_audio.serve.app import create_app
    from qwen2_audio.serve.settings import Settings

    chat = qa.load()

    def ask(client, clip):
        data = base64.b64encode((qa.nano_path() / "clips" / clip).read_bytes()).decode()
        content = [{"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}]
        body = {"model": "nano", "messages": [{"role": "user", "content": content}], "stream": True}
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            assert response.status_code == 200
            return "".join(response.iter_text())

    with (
        traced() as trace,
        TestClient(create_app(Service(chat.model, chat.processor, name="nano"), Settings())) as client,
    ):
        ask(client, "dog.wav")
        settle(trace)
        assert "data: [DONE]" in ask(client, "rain.wav")
        files = dict(trace)
    check_walk("An HTTP request", files)
