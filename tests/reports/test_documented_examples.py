"""The examples of docs/http.md, run against nano: their answers are about the clips that they send."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openai")

import qwen2_audio
from kit.clip_files import wav_bytes
from kit.live_server import live
from qwen2_audio.api.service import Service

PAGE = (Path(__file__).parents[2] / "docs" / "http.md").read_text(encoding="utf-8")
CLIPS = qwen2_audio.nano_path() / "clips"
QUESTION = "What is seven plus five?"


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.S | re.M)


@pytest.fixture(scope="module")
def url():
    chat = qwen2_audio.load("nano", device="cpu")
    with live(Service(chat.model, chat.processor, name="nano")) as server:
        yield server.url


@pytest.fixture
def folder(tmp_path):
    shutil.copy(CLIPS / "dog.wav", tmp_path)
    shutil.copy(CLIPS / "sum.wav", tmp_path / "talk.mp3")  # the format is read from the bytes
    (tmp_path / "meeting.wav").write_bytes(wav_bytes(35.0))
    return tmp_path


def printed(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, ["dog"]),
        (1, ["dog"]),
        (2, ["0.0 ", "'long': 'parts'"]),
        (3, [QUESTION, f"--> 00:00:01,9\n{QUESTION}"]),
        (4, ["dog", "response.completed"]),
        (5, ["2 256"]),
        (6, ["dog"]),
    ],
)
def test_programs(url, folder, number, words):
    program = blocks("python http")[number].replace("http://127.0.0.1:8000", url)
    answer = printed([sys.executable, "-c", program], folder)
    for expected in words:
        assert expected in re.sub(r"(00:00:01),\d+", r"\1,9", answer)


@pytest.mark.parametrize(("number", "word"), [(0, "dog"), (1, QUESTION), (2, "logprob"), (3, "dog"), (4, "tokens")])
def test_commands(url, folder, number, word):
    if shutil.which("curl") is None:
        pytest.skip("curl is not here")
    script = blocks("sh http")[number].replace("http://127.0.0.1:8000", url).replace("curl ", "curl -sS --fail ")
    assert word in printed(["bash", "-ec", script], folder)


def test_no_example_is_left_out():
    assert (len(blocks("python http")), len(blocks("sh http"))) == (7, 5)
