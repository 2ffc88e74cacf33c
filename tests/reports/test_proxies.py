"""Behind a proxy: host names with ports or capitals, trailing slashes, idle connections, and nginx's limit of 1 MB."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import httpx2 as httpx
import pytest
from starlette.testclient import TestClient

from kit.fake_backend import FakeBackend
from kit.live_server import live
from qwen2_audio.serve.app import STATIC, create_app
from qwen2_audio.serve.run import Address, Server
from qwen2_audio.serve.settings import Settings

CHAT = {"messages": [{"role": "user", "content": "say hi"}]}
JSON = {"Content-Type": "application/json"}
GUIDE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")


def client_of(**settings) -> TestClient:
    return TestClient(create_app(FakeBackend(), Settings(**settings)), base_url="http://localhost")


@pytest.mark.parametrize("allowed", ["audio.example.org", "Audio.Example.ORG", "audio.example.org:8443"])
@pytest.mark.parametrize(
    "host", ["audio.example.org", "AUDIO.example.org", "audio.example.org:443", "audio.example.org."]
)
def test_host_names(allowed, host):
    client = client_of(hosts=(allowed,))
    assert client.get("/v1/models", headers={"Host": host}).status_code == 200
    assert client.get("/v1/models", headers={"Host": "evil.example"}).status_code == 403


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("Audio.Example.org", "https://audio.example.org", 200),
        ("audio.example.org:443", "https://audio.example.org", 200),
        ("audio.example.org:8443", "https://audio.example.org:8443", 200),
        ("audio.example.org", "https://audio.example.org:8443", 403),
        ("audio.example.org", "https://example.org", 403),
    ],
)
def test_the_page_s_own_origin(host, origin, status):
    answer = client_of().post("/v1/chat/completions", json=CHAT, headers={"Host": host, "Origin": origin})
    assert answer.status_code == status


@pytest.mark.parametrize("path", ["/v1/models/", "/v1/models/fake/", "/health/", "/ready//", "/version/", "/metrics/"])
def test_trailing_slashes(path):
    assert client_of().get(path, follow_redirects=False).status_code == 200


def test_a_trailing_slash_behind_a_post_and_below_a_prefix():
    post = "/v1/chat/completions/"
    assert client_of().post(post, json=CHAT, follow_redirects=False).status_code == 200
    mounted = TestClient(create_app(FakeBackend()), root_path="/audio")
    assert mounted.post(f"/audio{post}", json=CHAT, follow_redirects=False).status_code == 200
    assert mounted.get("/audio/", follow_redirects=False).status_code == 200


def test_keep_alive_is_a_setting():
    server = Server(create_app(FakeBackend(), Settings(keep_alive=77)), Address())
    assert server.config.timeout_keep_alive == 77


def test_the_page_names_the_proxy_s_limit(tmp_path):
    if shutil.which("node") is None:
        pytest.skip("node is not here")
    for name in ("api.js", "problem.js"):
        shutil.copy(STATIC / name, tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "ask.js").write_text(
        'import { Api } from "./api.js";\n'
        'globalThis.fetch = async () => new Response("<html>413</html>", { status: 413 });\n'
        "await new Api().models().catch((problem) => console.log(problem.kind, problem.message));\n"
    )
    done = subprocess.run(["node", "ask.js"], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert done.stdout == "full The proxy limits requests to 1 MB.\n", done.stderr


@pytest.fixture
def nginx(tmp_path):
    """nginx(lines) -> the URL of a proxy with these lines in its server block."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("nginx is not here")
    running = []

    def start(lines: str) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        folders = " ".join(f"{name}_temp_path {tmp_path}/{name};" for name in names)
        server = f"server {{ listen 127.0.0.1:{port}; {lines} }}"
        user = "user root;" if os.getuid() == 0 else ""  # its workers write below tmp_path
        text = f"daemon off; {user} pid {tmp_path}/pid; error_log {tmp_path}/log; events {{}} "
        (tmp_path / "conf").write_text(f"{text} http {{ access_log off; {folders} {server} }}")
        running.append(subprocess.Popen([program, "-p", str(tmp_path), "-c", str(tmp_path / "conf")]))
        end = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return f"http://localhost:{port}"
            except OSError:
                assert time.monotonic() < end and running[-1].poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.05)

    yield start
    for process in running:
        process.terminate()
        process.wait(10)


def test_the_lines_for_nginx(nginx):
    (lines,) = re.findall(r"^```nginx\n(.*?)^```", GUIDE, re.S | re.M)
    with live(FakeBackend(), Settings(hosts=("localhost",))) as server:
        url = nginx(lines.replace("http://127.0.0.1:8000", server.url))
        large = json.dumps(CHAT).encode() + b" " * 3_000_000
        with httpx.Client(base_url=url, headers={"Origin": url}, timeout=30) as client:
            assert client.get("/").status_code == 200
            assert client.post("/v1/chat/completions", content=large, headers=JSON).status_code == 200
            late = {"messages": [{"role": "user", "content": "say hi there"}], "stream": True}
            with client.stream("POST", "/v1/chat/completions/", json=late) as answer:
                first = next(answer.iter_lines())
            assert json.loads(first.removeprefix("data: "))["object"] == "chat.completion.chunk"


def test_the_defaults_of_nginx_refuse_a_large_body_without_words_of_ours(nginx):
    with live(FakeBackend()) as server:
        url = nginx(f"location / {{ proxy_pass {server.url}; }}")
        answer = httpx.post(f"{url}/v1/chat/completions", json={"messages": [], "user": "x" * 2_000_000}, timeout=30)
        assert answer.status_code == 413
        assert "application/json" not in answer.headers["content-type"]
