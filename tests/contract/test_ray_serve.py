"""`qwen2-audio serve --ray` with two replicas of nano: one of them is killed, and clients see one server."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time

import httpx2 as httpx
import pytest

import qwen2_audio as qa
from kit.clip_files import wav_bytes
from kit.live_server import live, wait_for
from qwen2_audio.distributed.ray_cluster import connected, import_serve
from qwen2_audio.serve.capabilities import read_capabilities
from qwen2_audio.serve.ray_app import application
from qwen2_audio.serve.ray_plan import Plan
from qwen2_audio.serve.settings import Settings

pytest.importorskip("ray.serve")
psutil = pytest.importorskip("psutil")
pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(600)]
CLIPS = sorted((qa.nano_path() / "clips").glob("*.wav"))


def chat(text: str, clip: bytes | None = None, **fields):
    parts: list[dict] = [{"type": "text", "text": text}]
    if clip is not None:
        data = base64.b64encode(clip).decode()
        parts.insert(0, {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}})
    return {"model": "nano", "messages": [{"role": "user", "content": parts}], "temperature": 0, **fields}


class RayServer:
    """The command, in a process of its own, and the replicas it has started."""

    def __init__(self, folder) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._stderr = (folder / "stderr").open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "qwen2_audio", "serve", "--model", "nano", "--port", str(self.port), "--ray",
             "local", "--replicas", "2", "--cpus-per-replica", "0.5"],
            cwd=folder, stdout=subprocess.PIPE, stderr=self._stderr, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(folder)},
        )  # fmt: skip
        end = time.monotonic() + 240
        while True:
            said = (folder / "stderr").read_text()
            assert self.process.poll() is None and time.monotonic() < end, said
            if "Serving nano at" in said:
                break
            time.sleep(0.2)

    @property
    def replicas(self) -> dict[int, str]:
        """Process ids of the replicas of the model that live."""
        found = {}
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if child.name().startswith("ray::ServeRepli") and "Model" in " ".join(child.cmdline()):
                    found[child.pid] = child.cmdline()[0]
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        return found

    def stop(self) -> str:
        """SIGTERM; what it wrote to standard output."""
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=90)
        self._stderr.close()
        return out


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    server = RayServer(tmp_path_factory.mktemp("ray"))
    with httpx.Client(base_url=server.url, timeout=120) as client:
        yield server, client
    assert server.stop() == "", "standard output is nobody's place for notices"
    assert server.process.returncode == 0


def test_answers_are_those_of_the_plain_server_and_the_page_is_there(served):
    _, client = served
    m = qa.load("nano")
    words = read_capabilities(qa.nano_path())
    with (
        live(m.service(), Settings(names=("nano",)), words=words) as plain,
        httpx.Client(base_url=plain.url, timeout=120) as other,
    ):
        for clip in CLIPS:
            for question in ("What is that sound?", "Describe it."):
                body = chat(question, clip.read_bytes(), max_tokens=24)
                answers = [each.post("/v1/chat/completions", json=body).json()["choices"] for each in (client, other)]
                assert answers[0] == answers[1], clip.name
        assert client.get("/").content == other.get("/").content
        models = [each.get("/v1/models").json()["data"][0] for each in (client, other)]
        assert models[0]["capabilities"] == models[1]["capabilities"] and models[0]["id"] == "nano"
    form = {"files": {"file": ("dog.wav", CLIPS[0].read_bytes())}, "data": {"model": "nano", "response_format": "text"}}
    assert client.post("/v1/audio/transcriptions", **form).status_code == 200
    assert client.post("/v1/chat/completions", json={"messages": []}).json()["error"]["param"] == "messages"


def stream(client, number: int, ends: dict[int, list[str]], begun: threading.Semaphore) -> None:
    body = chat(f"Count to {number}.", min_tokens=80, max_tokens=80, stream=True)
    terminal = []
    try:
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            events = (line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: "))
            for at, event in enumerate(events):
                if at == 2:
                    begun.release()
                if event == "[DONE]":
                    terminal.append("done")
                elif "error" in (said := json.loads(event)):
                    terminal.append(said["error"]["code"])
                elif said["choices"] and said["choices"][0]["finish_reason"] == "length":
                    terminal.append("length")
    except httpx.HTTPError as error:
        terminal.append(f"broken: {error!r}")
    ends[number] = terminal


def test_a_killed_replica_costs_fifty_streams_an_error_event_at_most(served, record_property):
    server, client = served
    before = server.replicas
    assert len(before) == 2
    ends: dict[int, list[str]] = {}
    begun = threading.Semaphore(0)
    with httpx.Client(base_url=server.url, timeout=300, limits=httpx.Limits(max_connections=60)) as wide:
        threads = [threading.Thread(target=stream, args=(wide, number, ends, begun)) for number in range(50)]
        for thread in threads:
            thread.start()
        for _ in range(12):  # some stream, others wait
            assert begun.acquire(timeout=60)
        os.kill(next(iter(before)), signal.SIGKILL)
        for thread in threads:
            thread.join(300)
    assert len(ends) == 50
    kinds = [tuple(terminal) for terminal in ends.values()]
    record_property("complete", kinds.count(("length", "done")))
    record_property("lost", kinds.count(("replica_lost",)))
    print({kind: kinds.count(kind) for kind in set(kinds)})
    assert set(kinds) <= {("length", "done"), ("replica_lost",)}
    assert ("length", "done") in kinds
    for number in range(20):  # healthy at once
        assert client.post("/v1/chat/completions", json=chat(f"And {number}?", max_tokens=2)).status_code == 200
    wait_for(lambda: len(server.replicas) == 2 and server.replicas != before, seconds=90)
    wait_for(lambda: client.get("/metrics").text.count("qwen2_audio_uptime_seconds{") == 2, seconds=60)


def test_a_second_question_about_a_clip_is_fast_because_it_goes_where_the_clip_is(served):
    _, client = served

    def seconds(clip: bytes, question: str) -> float:
        began = time.perf_counter()
        client.post("/v1/chat/completions", json=chat(question, clip, max_tokens=1)).raise_for_status()
        return time.perf_counter() - began

    first, second = [], []
    for number in range(10):
        clip = wav_bytes(30.0, hertz=150.0 + 40 * number)
        first.append(seconds(clip, "What is that sound?"))
        second.append(seconds(clip, "What is that sound, please?"))
    ratio = statistics.median(first) / statistics.median(second)
    print({"cold_ms": statistics.median(first) * 1e3, "cached_ms": statistics.median(second) * 1e3, "ratio": ratio})
    cached = [float(line.split()[-1]) for line in client.get("/metrics").text.splitlines()
              if line.startswith("qwen2_audio_cached_tokens_total{")]  # fmt: skip
    assert sum(cached) > 10 * 700, "the prefix of every second question"
    assert ratio >= 3


def test_an_update_lets_running_streams_finish(tmp_path, monkeypatch):
    """The same application under another name: new requests go to the new replica, and no stream breaks off."""
    monkeypatch.setenv("HOME", str(tmp_path))
    serve = import_serve()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def deploy(name: str) -> None:
        plan = Plan({"name": "nano"}, Settings(names=(name,), grace=60.0), cpus=0.5)
        serve.run(application(plan), name="qwen2-audio", route_prefix="/")

    with connected("local"), httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        deploy("nano")
        ends: dict[int, list[str]] = {}
        begun = threading.Semaphore(0)
        threads = [threading.Thread(target=stream, args=(client, number, ends, begun)) for number in range(8)]
        for thread in threads:
            thread.start()
        assert begun.acquire(timeout=60)
        deploy("renamed")
        for thread in threads:
            thread.join(120)
        assert list(ends.values()) == [["length", "done"]] * 8
        assert [entry["id"] for entry in client.get("/v1/models").json()["data"]] == ["renamed"]
        serve.shutdown()
