"""docs/http.md says what the server takes, no more and no less, and its examples run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kit import warm
from kit.clip_files import encoded, wav_bytes
from kit.fake_backend import FakeBackend
from kit.live_server import live
from qwen2_audio.longform.wording import LANGUAGES
from qwen2_audio.serve.convert import messages_of
from qwen2_audio.serve.media import Link
from qwen2_audio.serve.protocol import NEUTRAL, ChatRequest, SpeechRequest, StreamOptions, parse_chat
from qwen2_audio.serve.routes.decisions import DecisionsRequest, SystemOneRequest
from qwen2_audio.serve.routes.embeddings import EmbeddingRequest
from qwen2_audio.serve.routes.responses import ResponsesRequest
from qwen2_audio.serve.routes.tokenize import TokenizeRequest
from qwen2_audio.serve.settings import Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
SERVING = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")


def blocks(kind: str, page: str = PAGE) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", page, re.S | re.M)


def table(heading: str) -> list[list[str]]:
    """Rows of the first table behind a line."""
    lines = PAGE[PAGE.index(heading) :].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def names(rows, column: int = 0) -> set[str]:
    return {name for row in rows for name in re.findall(r"`([\w\[\]]+)`", row[column])}


@pytest.fixture(scope="module")
def documented():
    with live(FakeBackend(), Settings(names=("nano",))) as server:
        yield server


@pytest.fixture
def here(tmp_path):
    (tmp_path / "dog.wav").write_bytes(wav_bytes())
    (tmp_path / "meeting.wav").write_bytes(wav_bytes(35.0))
    (tmp_path / "talk.mp3").write_bytes(encoded("mp3", "libmp3lame"))
    return tmp_path


@pytest.mark.parametrize("number", range(len(blocks("python http"))))
def test_programs(documented, here, number):
    program = blocks("python http")[number].replace("http://127.0.0.1:8000", documented.url)
    done = warm.run(["-c", program], folder=here, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    assert any(word in done.stdout for word in ("heard", "transcript.text.done", "dog", "seconds")), done.stdout


@pytest.mark.parametrize("number", range(len(blocks("sh http"))))
def test_commands(documented, here, number):
    if shutil.which("curl") is None:
        pytest.skip("curl is not here")
    script = (
        blocks("sh http")[number].replace("http://127.0.0.1:8000", documented.url).replace("curl ", "curl -sS --fail ")
    )
    done = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, cwd=here, timeout=60)
    assert done.returncode == 0 and any(word in done.stdout for word in ("heard", "label_mass", "token_strs")), (
        done.stderr
    )


def test_there_are_examples():
    assert len(blocks("python http")) >= 3 and len(blocks("sh http")) >= 2


def test_every_form_of_a_clip_is_taken():
    (example,) = [json.loads(text) for text in blocks("json")]
    for part in example["messages"][0]["content"]:
        if "input_audio" in part:
            part["input_audio"]["data"] = "AAAA"
        if str(part.get("audio")).startswith("UklG"):
            part["audio"] = "AAAA"
        if str(part.get("audio_url")).count("data:"):
            part["audio_url"]["url"] = "data:audio/webm;base64,AAAA"
    (message,) = messages_of(parse_chat(example), Settings())
    clips = [part["audio"] for part in message["content"] if part["type"] == "audio"]
    assert [type(clip) for clip in clips] == [bytes, Link, bytes, Link, Link, Link, bytes]


def test_every_field_of_chat_is_documented():
    assert names(table("### Fields")) == set(ChatRequest.model_fields)
    assert set(StreamOptions.model_fields) - {"include_obfuscation"} <= set(re.findall(r"`(\w+)`", PAGE))
    assert names(table("Fields that only some value")) == set(NEUTRAL)


def test_every_field_of_speech_is_documented():
    found = {name.removesuffix("[]") for name in names(table("curl http://127.0.0.1:8000/v1/audio"))}
    assert found == {*SpeechRequest.model_fields, "file"}
    codes = next(row[1] for row in table("curl http://127.0.0.1:8000/v1/audio") if row[0] == "`language`")
    assert re.findall(r"\b[a-z]{2,3}\b", codes.partition(": ")[2].partition(";")[0]) == sorted(LANGUAGES)


@pytest.mark.parametrize(
    ("heading", "model"),
    [
        ("print(first.output_text", ResponsesRequest),
        ("print(sound[", EmbeddingRequest),
        ("print(decision.answers", DecisionsRequest),
        ("curl http://127.0.0.1:8000/v1/systemone", SystemOneRequest),
        ("curl http://127.0.0.1:8000/tokenize", TokenizeRequest),
    ],
)
def test_every_field_of_the_other_routes_is_documented(heading, model):
    assert names(table(heading)) - {"tokenize"} == set(model.model_fields)


def test_every_path_is_documented(documented):
    paths = {route.path for route in documented.app.routes} - {"/", "/static"}
    paths = {re.sub(r":\w+", "", path) for path in paths}
    assert {path for row in table("| path |") for path in re.findall(r" (/[\w/{}]+)`", row[0])} - {"/"} == paths


def test_every_code_of_an_error_is_documented():
    source = "".join(path.read_text() for path in (ROOT / "src/qwen2_audio/serve").rglob("*.py"))
    codes = set(re.findall(r"code=\"(\w+)\"", source)) | set(re.findall(r"40\d: \"(\w+)\"", source))
    codes |= set(re.findall(r"\(4\d\d, \"(\w+)\"\)", source)) | {"overloaded", "too_many_clips"}
    codes -= {"authentication_error", "permission_error", "invalid_request"}
    assert names(table("## Errors"), 1) == codes


def test_the_options_in_the_guide_exist():
    import typer

    from qwen2_audio.cli.serve import command

    app = typer.Typer(add_completion=False)
    app.command()(command)
    taken = {option for param in typer.main.get_command(app).params for option in param.opts}
    lines = [line for block in blocks("sh serve", SERVING) for line in block.replace("\\\n", " ").splitlines()]
    served = " ".join(line for line in lines if line.startswith("qwen2-audio serve"))
    inline = " ".join(re.findall(r"`(--[^`]*)`", SERVING))
    assert set(re.findall(r"--[a-z][a-z-]*", served + inline)) <= taken
    assert "--ssl-certfile" in served


def test_the_program_in_the_guide_makes_an_application():
    program = blocks("python serve", SERVING)[-1] + "\nprint(len(app.routes)); app.state.server.backend.close(0)\n"
    done = warm.run(["-c", program], timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) >= 9
