"""The gateway before replicas that die, are full, or do not exist; clients see one server."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import threading
import time

import httpx2 as httpx
import pytest

from kit.clip_files import wav_bytes
from kit.fleet import Fleet
from kit.live_server import Live, wait_for
from qwen2_audio.serve.ray_gateway import create_gateway, merged
from qwen2_audio.serve.settings import Settings


@pytest.fixture
def serving():
    """serving(fleet, field=value, ...) -> a client of a gateway before that fleet, over a real socket."""
    running = []

    def start(fleet: Fleet, **fields):
        server = Live(None, app=create_gateway(fleet, Settings(**{"grace": 1, "deadline": 20, **fields})))
        client = httpx.Client(base_url=server.url, timeout=20)
        running.append((server, client))
        return client

    yield start
    for server, client in running:
        client.close()
        server.stop()


def chat(text: str, *clips: bytes, **fields):
    parts = [
        {"type": "input_audio", "input_audio": {"data": base64.b64encode(clip).decode(), "format": "wav"}}
        for clip in clips
    ]
    return {"messages": [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}], **fields}


def events(lines):
    return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


def test_answers_and_streams_are_those_of_the_plain_server(serving):
    client = serving(Fleet())
    whole = client.post("/v1/chat/completions", json=chat("say one two", wav_bytes())).json()
    assert whole["choices"][0]["message"]["content"] == "one two"
    streamed = client.post("/v1/chat/completions", json=chat("say one two", stream=True))
    assert streamed.headers["content-type"].startswith("text/event-stream")
    *chunks, done = events(streamed.text.splitlines())
    assert done == "[DONE]"
    words = [json.loads(chunk)["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert "".join(words) == "one two"
    form = {"files": {"file": ("a.wav", wav_bytes(), "audio/wav")}, "data": {"model": "fake"}}
    assert client.post("/v1/audio/transcriptions", **form).status_code == 200
    assert "<html" in client.get("/").text and client.get("/static/page.css").status_code in (200, 404)
    assert client.get("/v1/models").json()["data"][0]["id"] == "fake"
    assert client.get("/ready").json() == {"status": "ready"}
    assert client.post("/v1/chat/completions", json={"messages": []}).status_code == 400
    assert client.get("/v1/nothing").json()["error"]["code"] == "not_found"


def test_requests_about_one_clip_go_to_one_replica(serving):
    fleet = Fleet(4)
    client = serving(fleet)
    for seconds in (1.0, 1.5, 2.0, 2.5, 3.0, 3.5):
        for question in ("say a", "say b", "say c"):
            client.post("/v1/chat/completions", json=chat(question, wav_bytes(seconds))).raise_for_status()
    replicas = [name for name, _, _ in fleet.asked]
    assert all(len(set(replicas[at : at + 3])) == 1 for at in range(0, len(replicas), 3))
    assert len(set(replicas)) > 1
    assert len({key for _, key, _ in fleet.asked}) == 6


def test_a_replica_that_dies_before_it_responds_costs_a_second_try(serving, caplog):
    fleet = Fleet()
    client = serving(fleet)
    said = {}
    thread = threading.Thread(
        target=lambda: said.update(client.post("/v1/chat/completions", json=chat("late hello there")).json())
    )
    thread.start()
    wait_for(lambda: fleet.asked)
    fleet.dead.add(fleet.asked[0][0])
    thread.join(20)
    assert said["choices"][0]["message"]["content"] == "hello there"
    assert len({name for name, _, _ in fleet.asked}) == 2
    assert "a replica was lost" in caplog.text


def test_a_stream_whose_replica_dies_ends_once_in_an_error_event(serving):
    fleet = Fleet(delay=0.01)
    client = serving(fleet)
    with client.stream("POST", "/v1/chat/completions", json=chat("loop", stream=True)) as answer:
        lines = answer.iter_lines()
        got = [next(lines) for _ in range(8)]
        fleet.dead.add(fleet.asked[0][0])
        got += list(lines)
    *chunks, last = events(got)
    assert json.loads(last)["error"]["code"] == "replica_lost" and json.loads(last)["error"]["type"] == "server_error"
    assert all(json.loads(chunk)["object"] == "chat.completion.chunk" for chunk in chunks)
    assert len(fleet.asked) == 1, "what was sent cannot be sent again"
    assert client.post("/v1/chat/completions", json=chat("say on")).status_code == 200


def test_if_the_second_replica_dies_too_the_client_is_told_to_try_again(serving):
    fleet = Fleet()
    fleet.dead |= set(fleet.apps)
    answer = serving(fleet).post("/v1/chat/completions", json=chat("say hi"))
    assert answer.status_code == 503 and answer.headers["retry-after"] == "2"
    assert answer.json()["error"]["code"] == "replica_lost"


def test_a_stored_response_goes_on_where_it_is_kept(serving):
    fleet = Fleet(4)
    client = serving(fleet)
    for number in range(4):
        first = client.post("/v1/responses", json={"input": f"say number {number}"}).json()
        then = client.post("/v1/responses", json={"input": "say more", "previous_response_id": first["id"]})
        assert then.status_code == 200 and then.json()["previous_response_id"] == first["id"]
        assert client.get(f"/v1/responses/{first['id']}").json()["id"] == first["id"]
        assert client.delete(f"/v1/responses/{first['id']}").json()["deleted"]
        assert len({name for name, _, _ in fleet.asked[-4:]}) == 1
    assert len({name for name, _, _ in fleet.asked}) > 1


def test_full_replicas_are_a_429(serving):
    fleet = Fleet()
    fleet.full = True
    answer = serving(fleet).post("/v1/chat/completions", json=chat("say hi"))
    assert answer.status_code == 429 and answer.json()["error"]["code"] == "queue_full"
    assert answer.headers["retry-after"] == "2"


def test_a_client_that_goes_away_ends_its_request(serving):
    fleet = Fleet(1, delay=0.01)
    client = serving(fleet)
    with client.stream("POST", "/v1/chat/completions", json=chat("loop", stream=True)) as answer:
        next(answer.iter_lines())
    (backend,) = fleet.backends.values()
    wait_for(lambda: backend.ends == ["cancelled"])


def test_a_request_that_nobody_answers_ends_at_its_deadline(serving):
    class Nobody(Fleet):
        async def ask(self, key, request):
            await asyncio.sleep(3600)
            yield []

    client = serving(Nobody(), deadline=0.3)
    began = time.monotonic()
    answer = client.post("/v1/chat/completions", json=chat("say hi"))
    assert answer.status_code == 503 and answer.json()["error"]["code"] == "deadline_exceeded"
    assert time.monotonic() - began < 15
    assert client.get("/health").status_code == 200, "the gateway itself lives"


def test_forms_and_questions_about_long_clips_may_take_as_long_as_a_clip(serving):
    class Slow(Fleet):
        async def ask(self, key, request):
            await asyncio.sleep(0.5)
            async for messages in super().ask(key, request):
                yield messages

    client = serving(Slow(), deadline=0.2, clip_seconds=15)
    form = {"files": {"file": ("a.wav", wav_bytes(), "audio/wav")}, "data": {"model": "fake"}}
    assert client.post("/v1/audio/transcriptions", **form).status_code == 200
    assert client.post("/v1/chat/completions", json=chat("say hi", long="parts")).status_code == 200
    assert client.post("/v1/chat/completions", json=chat("say hi")).status_code == 503


def test_a_form_that_is_larger_than_a_body_is_refused_at_admission(serving, monkeypatch):
    fleet, read = Fleet(), []
    monkeypatch.setattr("qwen2_audio.serve.ray_gateway.read_body", lambda *arguments: read.append(arguments))
    client = serving(fleet, body_bytes=4000)
    answer = client.post("/v1/audio/transcriptions", files={"file": ("a.wav", wav_bytes(), "audio/wav")})
    assert answer.status_code == 413
    assert answer.json()["error"]["message"] == "The body is larger than 4,000 bytes, the limit for a request."
    assert read == fleet.asked == []


def test_the_gateway_checks_keys_hosts_origins_and_sizes(serving):
    fleet = Fleet()
    client = serving(fleet, api_keys=("secret",), hosts=("127.0.0.1",), origins=("https://a.example",), body_bytes=4000)
    key = {"Authorization": "Bearer secret"}
    assert client.post("/v1/chat/completions", json=chat("say hi")).status_code == 401
    assert client.get("/health", headers={"Host": "evil.example"}).status_code == 200
    assert client.get("/v1/models", headers={**key, "Host": "evil.example"}).status_code == 403
    strange = {**key, "Origin": "https://b.example"}
    assert client.post("/v1/chat/completions", json=chat("say hi"), headers=strange).status_code == 403
    large = client.post("/v1/chat/completions", content=b" " * 5000, headers=key)
    assert large.status_code == 413
    assert fleet.asked == []
    known = {**key, "Origin": "https://a.example"}
    answer = client.post("/v1/chat/completions", json=chat("say hi"), headers=known)
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == "https://a.example"
    names = {name for name, _ in fleet.requests[0].headers}
    assert not names & {b"authorization", b"origin"}, "a replica needs to know neither"


def test_a_compressed_body_reaches_the_replica_whole(serving):
    client = serving(Fleet())
    body = gzip.compress(json.dumps(chat("say hi")).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = client.post("/v1/chat/completions", content=body, headers=headers)
    assert answer.json()["choices"][0]["message"]["content"] == "hi"


def test_metrics_are_those_of_all_replicas(serving):
    fleet = Fleet(3)
    client = serving(fleet)
    client.post("/v1/chat/completions", json=chat("say one")).raise_for_status()
    text = client.get("/metrics").text
    for name in fleet.apps:
        assert f'qwen2_audio_generation_tokens_total{{replica="{name}"}}' in text
    assert text.count("# TYPE qwen2_audio_generation_tokens_total counter") == 1
    assert text.count("# TYPE qwen2_audio_e2e_request_latency_seconds histogram") == 1
    tokens = [line for line in text.splitlines() if line.startswith("qwen2_audio_generation_tokens_total{")]
    assert sum(float(line.split()[1]) for line in tokens) == 1


def test_labels_of_a_replica_stay_beside_its_name():
    text = '# HELP a_total Help\n# TYPE a_total counter\na_total{path="/v1"} 2.0\n'
    said = merged({"r1": text, "r2": text}).decode().splitlines()
    assert said == ["# HELP a_total Help", "# TYPE a_total counter", 'a_total{path="/v1",replica="r1"} 2.0',
                    'a_total{path="/v1",replica="r2"} 2.0']  # fmt: skip
