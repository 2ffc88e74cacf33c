"""Folders as they are, repositories through the cache, and one clear sentence for everything else."""

import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from qwen2_audio.checkpoint import hub
from qwen2_audio.errors import WeightsError

NAME = "owner/name"
FILES = ["config.json"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache and nobody listening; no test here leaves the machine."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    return folder


@pytest.fixture
def hub_that_says(monkeypatch):
    """Start a hub that answers every request with the given status and error code."""
    servers = []

    def start(status: int, code: str = "", seconds: float = 0) -> list[str]:
        requests: list[str] = []

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                requests.append(self.path)
                time.sleep(seconds)
                self.send_response(status)
                if code:
                    self.send_header("X-Error-Code", code)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        return requests

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def fill(cache: Path) -> Path:
    """What a download of `owner/name` leaves behind."""
    commit = "0" * 40
    snapshot = cache / "models--owner--name" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (cache / "models--owner--name" / "refs").mkdir()
    (cache / "models--owner--name" / "refs" / "main").write_text(commit)
    return snapshot


def refusal(name, **options) -> str:
    with pytest.raises(WeightsError) as caught:
        hub.resolve(name, FILES, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_folder_is_itself(tmp_path, hub_that_says):
    asked = hub_that_says(200)
    assert hub.resolve(tmp_path, FILES) == tmp_path
    assert hub.resolve(str(tmp_path), FILES) == tmp_path
    assert asked == []


def test_a_folder_named_like_a_repository_comes_first(tmp_path, monkeypatch, hub_that_says):
    asked = hub_that_says(200)
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).mkdir(parents=True)
    assert hub.resolve(NAME, FILES) == Path(NAME)
    assert asked == []


@pytest.mark.parametrize(
    "path", ["./x", "../owner/name", "/no/such", "a/b/c", "name", "~/x", "owner/", "/name", "C:\\x", "owner\\name"]
)
def test_what_looks_like_a_path_is_never_asked_of_the_hub(path, tmp_path, monkeypatch, hub_that_says):
    asked = hub_that_says(404, "RepoNotFound")
    monkeypatch.chdir(tmp_path)
    text = refusal(path)
    assert repr(path) in text
    assert "not a repository name of the form 'owner/name'" in text
    assert asked == []


def test_no_name_is_not_the_current_folder():
    assert refusal("").startswith("The name of the checkpoint is empty")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    text = refusal(tmp_path / "model.safetensors")
    assert "is a file; expected the folder that holds config.json" in text


def test_an_unreachable_hub_is_one_sentence_and_quick():
    started = time.monotonic()
    text = refusal(NAME)
    assert time.monotonic() - started < 5
    assert text.startswith("The hub cannot be reached (")
    assert "'owner/name' is neither a folder here nor in the cache" in text
    assert "give the path of a folder" in text


def test_a_hub_that_never_answers_is_given_up(monkeypatch, hub_that_says):
    hub_that_says(200, seconds=3)
    monkeypatch.setattr(hub, "TIMEOUT_SECONDS", 0.3)
    started = time.monotonic()
    assert "The hub cannot be reached (" in refusal(NAME)
    assert time.monotonic() - started < 2.5


def test_a_hub_in_trouble(hub_that_says):
    hub_that_says(500)
    assert "The hub answers with an error (" in refusal(NAME)


def test_no_such_repository(hub_that_says):
    hub_that_says(404, "RepoNotFound")
    text = refusal(NAME)
    assert text.startswith("There is no folder 'owner/name' here and the hub has no such repository, or it is private")


def test_a_gated_repository(hub_that_says):
    hub_that_says(403, "GatedRepo")
    assert "'owner/name' is gated; accept its terms on the hub and set HF_TOKEN" in refusal(NAME)


def test_no_such_revision(hub_that_says):
    hub_that_says(404, "RevisionNotFound")
    assert refusal(NAME, revision="v9") == "The hub has no 'owner/name' at revision 'v9'; check the revision."


@pytest.mark.parametrize("reachable", [True, False])
def test_offline_and_not_cached(reachable, cache, monkeypatch, hub_that_says):
    asked = hub_that_says(404) if reachable else []
    text = refusal(NAME, local_files_only=True)
    assert f"in the cache {cache}, and local_files_only is set" in text
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refusal(NAME)
    assert asked == []


def test_what_is_cached_serves_offline(cache, monkeypatch, hub_that_says):
    snapshot = fill(cache)
    assert hub.resolve(NAME, FILES) == snapshot  # nobody listens
    hub_that_says(500)
    assert hub.resolve(NAME, FILES) == snapshot
    assert hub.resolve(NAME, FILES, local_files_only=True) == snapshot
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.resolve(NAME, FILES) == snapshot


def test_options_reach_the_download(monkeypatch, tmp_path):
    import huggingface_hub

    captured = {}
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda self, name, **options: captured.update(options))
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda name, **options: captured.update(options, name=name) or str(tmp_path),
    )
    assert hub.resolve(NAME, ["*.safetensors"], revision="v1") == tmp_path
    assert (captured["name"], captured["revision"], captured["allow_patterns"]) == (NAME, "v1", ["*.safetensors"])
    assert not captured["local_files_only"]


def test_a_download_that_stops_says_so(monkeypatch):
    import huggingface_hub

    def stop(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda self, name, **options: None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", stop)
    assert "No space left on device. Run again; what has arrived is kept." in refusal(NAME)


def test_importing_config_and_hub_brings_no_heavy_library():
    code = "import sys, qwen2_audio.checkpoint.config; sys.exit(bool({'huggingface_hub', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
