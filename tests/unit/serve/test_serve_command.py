"""`qwen2-audio serve`: what its options become, and the command itself on the bundled checkpoint."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from kit.fake_backend import FakeBackend
from qwen2_audio.checkpoint.locate import nano_path
from qwen2_audio.cli import serve as command
from qwen2_audio.cli.main import run
from qwen2_audio.serve import run as running


@pytest.fixture
def serving(monkeypatch):
    """serving("--port", 0, ...) -> (status, address, settings) without loading or listening."""
    seen = {}
    monkeypatch.setattr(command, "_load", lambda *_: FakeBackend())

    def serve(app, address, listener):
        seen.update(address=address, settings=app.state.server.settings, names=app.state.server.names)

    monkeypatch.setattr(running, "serve", serve)
    monkeypatch.delenv(command.KEY_VARIABLE, raising=False)

    def call(*options):
        seen.clear()
        status = run(["serve", "--port", "0", *map(str, options)])
        return status, seen

    return call


def test_by_default_only_this_machine_may_ask(serving, capsys):
    status, seen = serving()
    assert status == 0
    assert seen["address"].host == "127.0.0.1"
    settings = seen["settings"]
    assert settings.hosts == ("127.0.0.1", "localhost", "::1")
    assert settings.api_keys == settings.origins == settings.names == settings.fetch.domains == ()
    assert settings.fetch.folder is None and settings.fetch.private_hosts == ()
    err = capsys.readouterr().err
    assert "Serving fake at http://127.0.0.1:" in err and "Anybody" not in err


def test_every_option_arrives(serving, tmp_path, monkeypatch):
    monkeypatch.setenv(command.KEY_VARIABLE, "third,fourth")
    status, seen = serving(
        "--host", "0.0.0.0", "--api-key", "first", "--api-key", "second", "--served-model-name", "mine",
        "--cors-origin", "https://a.example", "--allowed-host", "b.example", "--allowed-media-domain", "c.example",
        "--allowed-private-host", "d.example", "--allowed-local-media-path", tmp_path, "--media-redirects", 1,
        "--media-timeout", 2, "--no-media-fetch", "--max-body-mb", 3, "--max-clip-mb", 2, "--max-clips", 4,
        "--max-concurrency", 5, "--deadline", 6, "--grace", 7,
    )  # fmt: skip
    assert status == 0
    settings, fetch = seen["settings"], seen["settings"].fetch
    assert settings.api_keys == ("first", "second", "third", "fourth")
    assert (settings.names, settings.origins, settings.hosts) == (("mine",), ("https://a.example",), ("b.example",))
    assert (settings.body_bytes, settings.clip_bytes, settings.clips, settings.concurrency) == (3 << 20, 2 << 20, 4, 5)
    assert (settings.deadline, settings.grace) == (6, 7)
    assert (fetch.web, fetch.domains, fetch.private_hosts) == (False, ("c.example",), ("d.example",))
    assert (fetch.redirects, fetch.seconds, fetch.folder) == (1, 2, tmp_path)


NO_LORAS: dict[str, Any] = {"lora_folder": None, "lora_modules": {}, "max_loras": 8}


def test_adapters_arrive_where_models_are_loaded(serving, monkeypatch, tmp_path, capsys):
    loads = []
    monkeypatch.setattr(command, "_load", lambda load, model: loads.append(load.keywords) or FakeBackend())
    named = ("--lora-modules", f"a={tmp_path}/x=y", "--lora-modules", "b=elsewhere")
    assert serving("--lora-folder", tmp_path, *named, "--max-loras", 3)[0] == 0
    ((found,),) = (loads,)
    assert (found["lora_folder"], found["max_loras"]) == (tmp_path, 3)
    assert found["lora_modules"] == {"a": tmp_path / "x=y", "b": Path("elsewhere")}
    for wrong, why in (("a", "has no name or no folder"), ("=b", "has no name or no folder")):
        assert serving("--lora-modules", wrong)[0] == 2 and why in capsys.readouterr().err
    assert serving("--lora-modules", "a=b", "--lora-modules", "a=c")[0] == 2
    assert "names an adapter twice" in capsys.readouterr().err


def test_a_draft_arrives_where_models_are_loaded(serving, monkeypatch):
    calls = []
    monkeypatch.setattr(command, "_load", lambda load, model: calls.append((load, model)) or FakeBackend())
    options = {"draft": "small", "num_speculative_tokens": 6, "aligner": "own", **NO_LORAS}
    assert serving("--model", "large", "--draft", "small", "--num-speculative-tokens", 6, "--aligner", "own")[0] == 0
    ((load, model),) = calls
    assert (model, load.args[0], load.keywords) == ("large", "large", options)


def test_an_old_option_does_what_the_new_one_does_and_says_so(serving, monkeypatch, capsys):
    loads = []
    monkeypatch.setattr(command, "_load", lambda load, model: loads.append(load.keywords) or FakeBackend())
    assert serving("--draft", "small", "--draft-tokens", 6)[0] == serving("--draft=small", "--draft-tokens=6")[0] == 0
    assert loads == [{"draft": "small", "num_speculative_tokens": 6, "aligner": None, **NO_LORAS}] * 2
    notice = "qwen2-audio: --draft-tokens is now --num-speculative-tokens; the old name goes in 0.3.\n"
    assert capsys.readouterr().err.count(notice) == 2


def test_an_open_door_is_said(serving, capsys):
    serving("--host", "0.0.0.0")
    assert "Anybody who reaches this address may ask" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--ssl-keyfile", "key.pem"), "without its certificate"),
        (("--ssl-certfile", "no.pem"), "There is no file no.pem"),
        (("--deadline", "0"), "deadline is 0.0; expected a number above 0"),
        (("--allowed-media-domain", "https://x"), "expected host names"),
        (("--allowed-local-media-path", "/no/such/folder"), "is not a folder"),
        (("--api-key", "two words"), "characters that no header carries"),
        (("--port", "99999"), "65535"),
        (("--num-speculative-tokens", "0"), "--num-speculative-tokens"),
    ],
)
def test_mistakes_end_in_a_sentence_before_a_model_is_loaded(serving, monkeypatch, capsys, options, words):
    monkeypatch.setattr(command, "_load", lambda *_: pytest.fail("a model was loaded"))
    status, _ = serving(*options)
    assert status == 2
    assert words in capsys.readouterr().err


def test_on_ray_what_is_missing_or_not_possible_there_is_a_sentence(serving, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert serving("--ray", "auto")[0] == 2
    assert "Serving on Ray needs Ray Serve: pip install 'qwen2-audio[serve-ray]'." in capsys.readouterr().err
    (tmp_path / "cert.pem").touch()
    assert serving("--ray", "auto", "--ssl-certfile", tmp_path / "cert.pem")[0] == 2
    assert "--ray takes no certificate" in capsys.readouterr().err


def test_so_do_mistakes_in_what_a_checkpoint_says_of_itself(serving, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(command, "_load", lambda *_: pytest.fail("a model was loaded"))
    (tmp_path / "capabilities.json").write_text('{"sumary": "Bells."}')
    assert serving("--model", tmp_path)[0] == 2
    assert f"{tmp_path}/capabilities.json: summary: Field required." in " ".join(capsys.readouterr().err.split())


def test_a_port_that_is_taken_is_said_before_a_model_is_loaded(serving, monkeypatch, capsys):
    monkeypatch.setattr(command, "_load", lambda *_: pytest.fail("a model was loaded"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert serving("--port", taken.getsockname()[1])[0] == 2
    assert "Cannot listen on 127.0.0.1" in capsys.readouterr().err


def test_the_command_serves_nano_and_ends_on_a_signal(tmp_path):
    """One process from start to end: the real engine, an answer, SIGTERM."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "qwen2_audio", "serve", "--model", "nano", "--port", str(port)],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        url, end = f"http://127.0.0.1:{port}", time.monotonic() + 60
        while True:
            try:
                ready = httpx.get(f"{url}/ready")
                break
            except httpx.ConnectError:
                assert process.poll() is None and time.monotonic() < end
                time.sleep(0.1)
        assert ready.json() == {"status": "ready"}
        (entry,) = httpx.get(f"{url}/v1/models").json()["data"]
        assert entry["id"] == "nano" and entry["capabilities"]["summary"].startswith("This is nano")
        assert httpx.get(f"{url}/samples/0").content == (nano_path() / "clips" / "dog.wav").read_bytes()
        body = {"model": "nano", "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 4}
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).json()
        assert 1 <= answer["usage"]["completion_tokens"] <= 4
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert f"Serving nano at http://127.0.0.1:{port}" in err
    assert "Traceback" not in err
