import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from qwen2_audio.serve.app import create_app
from qwen2_audio.serve.middleware import LOOPBACK_HOSTS
from qwen2_audio.serve.settings import Settings

CHAT = {"messages": [{"role": "user", "content": "say hi"}]}
BEARER = {"Authorization": "Bearer right-key"}


def test_keys(client_of):
    client = client_of(Settings(api_keys=("right-key", "other")))
    for headers in (
        {}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer right-ke"},
        {}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer right-ke"},
        {"Authorization": "Bearer right-keyy"}, {"Authorization": "Basic right-key"}, {"Authorization": "right-key"},
        {"Authorization": "Bearer"},
        {"Authorization": b"Bearer \xff\xfe"},
    ):  # fmt: skip
        for answer in (client.get("/v1/models", headers=headers), client.get("/metrics", headers=headers)):
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
            assert answer.json()["error"]["type"] == "authentication_error"
            assert answer.headers["www-authenticate"] == "Bearer"
    assert client.get("/v1/no/such/path").status_code == 401
    for key in ("right-key", "other"):
        assert client.get("/v1/models", headers={"Authorization": f"bearer {key}"}).status_code == 200
    for path in ("/health", "/ready", "/version"):
        assert client.get(path).status_code == 200


@pytest.mark.parametrize("how", ["mounted", "root path"])
def test_keys_and_origins_hold_below_a_prefix(backend, how):
    app = create_app(backend, Settings(api_keys=("right-key",)))
    whole = Starlette(routes=[Mount("/audio", app)]) if how == "mounted" else app
    client = TestClient(whole, root_path="" if how == "mounted" else "/audio")
    evil = {**BEARER, "Origin": "https://evil.example"}
    for method, path in (("GET", "/v1/models"), ("GET", "/metrics"), ("POST", "/v1/chat/completions")):
        body = CHAT if method == "POST" else None
        statuses = [
            client.request(method, f"/audio{path}", json=body, headers=headers).status_code
            for headers in ({}, evil, BEARER)
        ]
        assert statuses == [401, 403, 200]
    for path in ("/health", "/ready", "/version"):
        assert client.get(f"/audio{path}").status_code == 200
    assert 'path="/v1/chat/completions",status="200"' in client.get("/audio/metrics", headers=BEARER).text


def test_what_is_not_known_to_be_open_needs_the_key(client_of):
    client = client_of(Settings(api_keys=("right-key",)))
    for path in ("/v1", "//v1/models", "/V1/models", "/metrics/", "/anything", "/staticky", "/health/more"):
        assert client.get(path, follow_redirects=False).status_code == 401
    assert client.get("/").status_code == client.get("/static/app.js").status_code == 200


def test_a_probe_by_address_is_answered_whatever_the_host_is_called(client_of):
    client = client_of(Settings(hosts=("Audio.Example.org",)))
    for path in ("/health", "/ready"):
        assert client.get(path, headers={"Host": "10.0.0.7:8000"}).status_code == 200
    for path in ("/metrics", "/version", "/v1/models", "/"):
        assert client.get(path, headers={"Host": "10.0.0.7:8000"}).status_code == 403
        assert client.get(path, headers={"Host": "Audio.Example.org"}).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:8000", 200), ("127.0.0.1", 200), ("[::1]:8000", 200), ("LOCALHOST", 200), ("evil.example", 403),
     ("localhost.evil.example", 403), ("", 403)],
)  # fmt: skip
def test_host_names(client_of, host, status):
    client = client_of(Settings(hosts=LOOPBACK_HOSTS))
    answer = client.get("/v1/models", headers={"Host": host})
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["error"]["code"] == "wrong_host"


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://localhost:8000", 200), ("https://friend.example", 200), ("https://evil.example", 403), ("null", 403),
     ("http://localhost:8001", 403), ("http://[", 403)],
)  # fmt: skip
def test_pages_of_other_origins(client_of, origin, status):
    client = client_of(Settings(origins=("https://friend.example",)))
    assert client.post("/v1/chat/completions", json=CHAT, headers={"Origin": origin}).status_code == status


def test_cors_is_off_unless_origins_are_named(client_of):
    ask = {"Origin": "https://friend.example", "Access-Control-Request-Method": "POST"}
    closed = client_of().options("/v1/chat/completions", headers=ask)
    assert "access-control-allow-origin" not in closed.headers
    client = client_of(Settings(origins=("https://friend.example",), api_keys=("right-key",)))
    assert client.options("/v1/chat/completions", headers=ask).headers["access-control-allow-origin"] == ask["Origin"]
    ask["Origin"] = "https://evil.example"
    assert "access-control-allow-origin" not in client.options("/v1/chat/completions", headers=ask).headers
    refused = client.post("/v1/chat/completions", json=CHAT, headers={"Origin": "https://friend.example"})
    assert refused.status_code == 401
    assert (
        refused.headers["access-control-allow-origin"] == "https://friend.example"
    )  # else the page could not read why


def test_a_page_may_use_the_client_of_openai(client_of):
    """Its preflight names what openai-js sends along."""
    client = client_of(Settings(origins=("https://App.Example",)))
    names = "authorization,content-type,x-stainless-arch,x-stainless-lang,x-stainless-retry-count,x-stainless-timeout"
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": names}
    answer = client.options("/v1/chat/completions", headers={"Origin": "https://app.example", **ask})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-headers"] == names


def test_a_form_that_a_page_can_send_without_asking_is_not_json(client):
    answer = client.post("/v1/chat/completions", content=b"{}", headers={"Content-Type": "text/plain"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")
    assert client.post("/v1/audio/transcriptions", json={}).status_code == 415


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/v1/nothing", 404, "not_found"), ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
     ("POST", "/health", 405, "method_not_allowed"), ("POST", "/v1/realtime", 404, "not_found")],
)  # fmt: skip
def test_other_paths_answer_in_the_same_form(client, method, path, status, code):
    answer = client.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_requests_have_numbers_and_are_counted(client):
    first, second = client.post("/v1/chat/completions", json=CHAT), client.get("/secret-path")
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    client.post("/v1/chat/completions", json={})
    lines = client.get("/metrics").text
    assert 'qwen2_audio_http_requests_total{path="/v1/chat/completions",status="200"} 1.0' in lines
    assert 'qwen2_audio_http_requests_total{path="/v1/chat/completions",status="400"} 1.0' in lines
    assert "secret-path" not in lines and 'path="other"' in lines


def test_labels_go_to_the_log(client, caplog):
    caplog.set_level("INFO", "qwen2_audio.serve")
    client.post("/v1/chat/completions", json={**CHAT, "user": "someone\nelse", "metadata": {"a": "b"}})
    assert "'someone\\nelse'" in caplog.text and "/v1/chat/completions" in caplog.text


def test_metrics_are_what_prometheus_reads(client, backend):
    stats = backend._stats
    stats.first_token.add(0.02)
    stats.first_token.add(99.0)
    client.post("/v1/chat/completions", json=CHAT)
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert len(families) >= 30
    assert families["qwen2_audio_requests_submitted"].samples[0].value == 1
    finished = families["qwen2_audio_requests_finished"].samples[0]
    assert (finished.labels, finished.value) == ({"reason": "stop"}, 1)
    assert families["qwen2_audio_num_requests_running"].type == "gauge"
    buckets = families["qwen2_audio_time_to_first_token_seconds"]
    values = {s.labels["le"]: s.value for s in buckets.samples if s.name.endswith("_bucket")}
    assert (values["0.01"], values["0.025"], values["60.0"], values["+Inf"]) == (0, 1, 1, 2)
    assert next(s.value for s in buckets.samples if s.name.endswith("_sum")) == pytest.approx(99.02)
    assert all(family.documentation for family in families.values())


PUBLIC_METRICS = {  # name -> type: dashboards are built on these
    "requests_submitted": "counter", "requests_finished": "counter", "prompt_tokens": "counter",
    "cached_tokens": "counter", "audio_tokens": "counter", "generation_tokens": "counter", "heard_seconds": "counter",
    "steps": "counter", "prefill_tokens": "counter", "decode_tokens": "counter", "seconds_prefill": "counter",
    "seconds_decode": "counter", "seconds_encoder": "counter", "seconds_overhead": "counter", "preemptions": "counter",
    "clips_encoded": "counter", "clips_cached": "counter", "guesses_made": "counter", "guesses_accepted": "counter",
    "draft_guesses_made": "counter", "draft_guesses_accepted": "counter", "draft_without_room": "counter",
    "lookup_tokens_proposed": "counter", "lookup_tokens_accepted": "counter", "draft_tokens_proposed": "counter",
    "draft_tokens_accepted": "counter", "draft_cache_full": "counter",
    "draft_failures": "counter", "seconds_draft": "counter", "num_requests_waiting": "gauge",
    "num_requests_running": "gauge", "blocks_used": "gauge", "blocks_cached": "gauge", "blocks_total": "gauge",
    "adapters_loaded": "gauge", "adapter_bytes": "gauge",
    "encoder_cache_bytes": "gauge", "sounds_bytes": "gauge", "request_queue_time_seconds": "histogram",
    "time_to_first_token_seconds": "histogram", "inter_token_latency_seconds": "histogram",
    "e2e_request_latency_seconds": "histogram", "step_seconds": "histogram", "request_prompt_tokens": "histogram",
    "http_requests": "counter", "http_requests_open": "gauge", "http_bytes_held": "gauge", "uptime_seconds": "gauge",
}  # fmt: skip


def test_metrics_keep_their_names_whatever_the_engine_calls_them(client, backend):
    backend._stats.encoder_cache_bytes = 77
    client.get("/health")
    families = list(text_string_to_metric_families(client.get("/metrics").text))
    assert {family.name.removeprefix("qwen2_audio_"): family.type for family in families} == PUBLIC_METRICS
    values = {sample.name: sample.value for family in families for sample in family.samples}
    assert values["qwen2_audio_encoder_cache_bytes"] == values["qwen2_audio_sounds_bytes"] == 77


def test_what_the_server_says_of_itself(client_of, backend):
    client = client_of(Settings(names=("mine", "yours")))
    models = client.get("/v1/models").json()["data"]
    assert [model["id"] for model in models] == ["mine", "yours"]
    assert models[0]["max_model_len"] == 2048 and models[0]["defaults"]["temperature"] == 0.0
    assert client.get("/v1/models/yours").json()["id"] == "yours"
    assert client.get("/v1/models/fake").status_code == 404
    answer = client.post("/v1/chat/completions", json={**CHAT, "model": "yours"})
    assert answer.json()["model"] == "mine"
    assert client.get("/version").json() == {"version": backend.version}
    assert client.get("/health").json() == {"status": "ok"}
    client.app.state.server.closing = True
    ready = client.get("/ready")
    assert (ready.status_code, ready.json()["error"]["code"]) == (503, "shutting_down")
    assert client.post("/v1/chat/completions", json=CHAT).status_code == 503
    assert client.get("/health").status_code == 200


def test_the_page_comes_from_here_and_cannot_be_framed(client):
    answer = client.get("/")
    if answer.status_code == 404:
        pytest.skip("the page is not there yet")
    assert "<html" in answer.text.lower()
    assert answer.headers["x-frame-options"] == "DENY" and answer.headers["x-content-type-options"] == "nosniff"
    for path in ("/../pyproject.toml", "/static/../app.py", "/%2e%2e/app.py", "/static/%2e%2e/app.py"):
        assert client.get(path).status_code == 404
