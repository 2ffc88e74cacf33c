"""What of deploy/ can run here: nginx before a server with a certificate, and the script for Slurm on one machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import httpx2 as httpx
import pytest

from kit.fake_backend import FakeBackend
from kit.live_server import live
from kit.rows import write_rows
from qwen2_audio.serve.settings import Settings

DEPLOY = Path(__file__).parents[3] / "deploy"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture
def certificate(tmp_path):
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not here")
    subprocess.run(
        [program, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost", "-keyout", tmp_path / "privkey.pem", "-out", tmp_path / "fullchain.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    return tmp_path


@pytest.fixture
def proxy(certificate):
    """proxy(upstream) -> the https URL of nginx with deploy/nginx.conf.template, and its http port."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("nginx is not here")
    running = []

    def start(upstream: str) -> tuple[str, int]:
        secure, plain = free_port(), free_port()
        lines = (DEPLOY / "nginx.conf.template").read_text()
        for name, value in {"SERVER_NAME": "localhost", "UPSTREAM": upstream}.items():  # as the image's envsubst
            lines = lines.replace(f"${{{name}}}", value)
        assert "${" not in lines
        lines = lines.replace("/etc/nginx/certs", str(certificate))
        lines = lines.replace("listen 443", f"listen 127.0.0.1:{secure}").replace(
            "listen 80", f"listen 127.0.0.1:{plain}"
        )
        folders = " ".join(
            f"{name}_temp_path {certificate}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root;" if os.getuid() == 0 else ""
        text = f"daemon off; {user} pid {certificate}/pid; error_log {certificate}/log; events {{}}\n"
        (certificate / "conf").write_text(f"{text} http {{ access_log off; {folders}\n{lines} }}")
        running.append(subprocess.Popen([program, "-p", str(certificate), "-c", str(certificate / "conf")]))
        end = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", secure), timeout=1).close()
                return f"https://localhost:{secure}", plain
            except OSError:
                assert time.monotonic() < end and running[-1].poll() is None, (certificate / "log").read_text()
                time.sleep(0.05)

    yield start
    for process in running:
        process.terminate()
        process.wait(10)


def test_nginx_ends_tls_before_the_server(proxy, certificate):
    trusted = ssl.create_default_context(cafile=str(certificate / "fullchain.pem"))
    with live(FakeBackend(delay=0.02), Settings(hosts=("localhost",), api_keys=("key",))) as server:
        url, plain = proxy(server.url)
        headers = {"Origin": url, "Authorization": "Bearer key"}
        with httpx.Client(base_url=url, headers=headers, timeout=30, verify=trusted) as client:
            assert "<html" in client.get("/").text
            body = {"messages": [{"role": "user", "content": "say one two three"}], "stream": True}
            with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
            assert lines[-1] == "[DONE]" and json.loads(lines[0])["object"] == "chat.completion.chunk"
            large = json.dumps({**body, "stream": False}).encode() + b" " * 3_000_000
            json_headers = {"Content-Type": "application/json"}
            assert client.post("/v1/chat/completions", content=large, headers=json_headers).status_code == 200
            assert client.get("/v1/models", headers={"Authorization": "Bearer no"}).status_code == 401
        moved = httpx.get(f"http://127.0.0.1:{plain}/a?b=c", headers={"Host": "localhost"})
        assert moved.status_code == 308 and moved.headers["location"] == "https://localhost/a?b=c"


CONFIG = """
model = "{model}"
output = "{output}"
steps = 1
device = "cpu"
parallel = "{parallel}"
method = "full"
[data]
train = "{rows}"
batch_size = 2
"""


def trained(tmp_path, tiny_checkpoint, script_environment, parallel) -> str:
    """Runs deploy/train.sbatch with a file of one step; what it printed."""
    config = CONFIG.format(model=tiny_checkpoint, output=tmp_path / "run", rows=write_rows(tmp_path), parallel=parallel)
    (tmp_path / "run.toml").write_text(config)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SLURM")}, "OMP_NUM_THREADS": "1",
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}", "PORT": str(free_port()),
        "MPLBACKEND": "agg", **script_environment,
    }  # fmt: skip
    done = subprocess.run(
        ["bash", DEPLOY / "train.sbatch", "sft", "run.toml"], cwd=tmp_path, env=environment, timeout=200,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert (tmp_path / "run" / "final").is_dir()
    return done.stdout


def test_the_slurm_script_trains_on_one_machine(tmp_path, tiny_checkpoint):
    """Slurm itself is not here: its two programs are stand-ins which do what they would on a cluster of one node."""
    (tmp_path / "scontrol").write_text('#!/bin/sh\n[ "$1 $2 $3" = "show hostnames node7" ] && echo localhost\n')
    (tmp_path / "srun").write_text('#!/bin/sh\necho "srun $1" > srun.log\nshift\nexec "$@"\n')
    for name in ("scontrol", "srun"):
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "node7", "SLURM_JOB_ID": "77", "PROCESSES": "1"}
    trained(tmp_path, tiny_checkpoint, slurm, "ddp")
    assert (tmp_path / "srun.log").read_text() == "srun --kill-on-bad-exit=1\n"
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in metrics if "loss" in row] == [1]


def test_the_slurm_script_is_bash_with_directives_first():
    text = (DEPLOY / "train.sbatch").read_text()
    lines = text.splitlines()
    assert lines[0] == "#!/bin/bash"
    body = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    assert all(number < body for number, line in enumerate(lines) if line.startswith("#SBATCH")), (
        "sbatch reads no later ones"
    )
    assert re.search(r"^#SBATCH --signal=TERM@\d+$", text, re.M), "a run that is told ends with a checkpoint"
    subprocess.run(["bash", "-n", DEPLOY / "train.sbatch"], check=True)
