"""A model behind a server: ours and scripted ones, slow, refusing, down."""

import json
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

import qwen2_audio as qa
from kit.evaluation import GREEDY, TASK, small_list
from kit.live_server import live
from qwen2_audio.errors import ConfigError
from qwen2_audio.evaluate.endpoint import Endpoint, EndpointDownError, EndpointError
from qwen2_audio.evaluate.local_model import LocalModel
from qwen2_audio.evaluate.predictions import read_predictions
from qwen2_audio.evaluate.question import Question
from qwen2_audio.evaluate.run import Run
from qwen2_audio.types import SamplingParams

SECOND = np.zeros(16_000, np.float32)
QUESTION = Question(SECOND, "What?", GREEDY)


@contextmanager
def scripted(respond):
    """A server whose completions are `respond(number of the request, body)`: a status and a text, or an error's."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            self.send(200, {"data": [{"id": "scripted", "object": "model"}]})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((body, self.headers["Authorization"]))
            status, text = respond(len(seen), body)
            if status is None:  # gone in the middle of it
                self.close_connection = True
                return
            message = {"role": "assistant", "content": text}
            answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "scripted"}
            answer |= {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
            answer |= {"usage": {"completion_tokens": 2, "prompt_tokens": 1, "total_tokens": 3}}
            self.send(status, answer if status == 200 else {"error": {"message": text}})

        def send(self, status, value):
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def ask():
    """ask(url, ...) -> an Endpoint, closed in the end."""
    made = []

    def make(url, *arguments, **options):
        made.append(Endpoint(url, *arguments, **options))
        return made[-1]

    yield make
    for endpoint in made:
        endpoint.close()


def test_what_is_sent_and_what_comes_back(ask):
    with scripted(lambda number, body: (200, "a dog")) as (url, seen):
        answer = ask(url + "/v1/", api_key="k").ask(QUESTION)
    assert (answer.text, answer.tokens, answer.finish_reason) == ("a dog", 2, "stop")
    ((body, authorization),) = seen
    assert authorization == "Bearer k" and body["model"] == "scripted" and body["temperature"] == 0
    clip, text = body["messages"][0]["content"]
    assert clip["input_audio"]["format"] == "wav" and text == {"type": "text", "text": "What?"}


def test_failures_are_tried_again(ask):
    with scripted(lambda number, body: (503, "busy") if number < 3 else (200, "yes")) as (url, seen):
        assert ask(url).ask(QUESTION).text == "yes"
    assert len(seen) == 3


def test_options_that_a_server_does_not_take_are_left_out(ask):
    def respond(number, body):
        return (400, "Unrecognized request argument: min_tokens") if "min_tokens" in body else (200, "yes")

    question = Question(SECOND, "What?", SamplingParams(temperature=0, min_tokens=1, top_k=5))
    with scripted(respond) as (url, seen):
        endpoint = ask(url)
        assert [endpoint.ask(question).text for _ in range(2)] == ["yes", "yes"]
    assert endpoint.dropped == ("min_tokens",)
    assert [sorted({"min_tokens", "top_k"} & set(body)) for body, _ in seen] == [
        ["min_tokens", "top_k"],
        ["top_k"],
        ["top_k"],
    ]


def test_a_refused_row_is_that_row_s_error_and_a_refused_key_is_everybody_s(ask):
    for status, text, error, message in (
        (400, "the clip is too loud", EndpointError, r"answered with an error: the clip is too loud\."),
        (401, "wrong key", ConfigError, r"refuses scripted: wrong key\."),
    ):
        with scripted(lambda *_, answer=(status, text): answer) as (url, _), pytest.raises(error, match=message):
            ask(url).ask(QUESTION)


def test_a_server_that_is_down_is_one_sentence(ask):
    with scripted(lambda number, body: (200, "yes")) as (url, _):
        endpoint = ask(url, "scripted", retries=1)
    with pytest.raises(
        EndpointDownError, match=r"does not answer: Connection error\. .*refused.*run the same command again"
    ):
        endpoint.ask(QUESTION)
    with pytest.raises(EndpointDownError, match=r"does not answer: .* Start the server"):
        ask(url, retries=0)
    with pytest.raises(ConfigError, match=r"--base-url is 'localhost'; expected http://HOST:PORT"):
        ask("localhost")


def test_a_server_that_goes_down_loses_no_answer(tmp_path, ask):
    examples = small_list(tmp_path / "data")
    down = threading.Event()
    down.set()

    def respond(number, body):
        return None if down.is_set() and number > 3 else 200, f"answer {number}"

    with scripted(respond) as (url, _):
        run = Run(tmp_path / "out", ask(url, retries=0, in_flight=1), hearing_check=False)
        with pytest.raises(EndpointDownError, match=r"does not answer: .* run the same command again"):
            run.ask([(TASK, examples)])
        kept = read_predictions(tmp_path / "out" / "predictions.jsonl")
        assert [one.text for one in kept] == ["answer 1", "answer 2", "answer 3"]
        assert not any(one.error for one in kept)
        down.clear()
        (done,) = run.ask([(TASK, examples)])
    assert done.asked == 3 and not done.failed
    assert len(read_predictions(tmp_path / "out" / "predictions.jsonl")) == 6


def test_answers_on_their_way_are_kept_where_another_fails(tmp_path, ask):
    examples = small_list(tmp_path / "data", 4)
    with scripted(lambda number, body: (None if number == 1 else 200, "yes")) as (url, _):
        run = Run(tmp_path / "out", ask(url, retries=0, in_flight=8), hearing_check=False)
        with pytest.raises(EndpointDownError):
            run.ask([(TASK, examples)])
    assert len(read_predictions(tmp_path / "out" / "predictions.jsonl")) == 3


def test_errors_of_every_row_stop_a_run(tmp_path, ask):
    examples = small_list(tmp_path / "data", 30)
    message = r"out of memory\. What was answered is kept"
    broken = scripted(lambda number, body: (500, "out of memory"))
    with broken as (url, _), pytest.raises(EndpointDownError, match=message):
        Run(tmp_path / "out", ask(url, retries=0), hearing_check=False).ask([(TASK, examples)])


def test_our_own_server_answers_as_the_checkpoint_does(tmp_path, ask):
    """The same code measures both; a clip of 16 bits is the same clip behind a server."""
    chat = qa.load("nano", device="cpu", dtype="float32")
    examples = small_list(tmp_path / "data", 3)
    local = LocalModel(chat, {})
    Run(tmp_path / "here", local, hearing_check=False).ask([(TASK, examples)])
    with live(chat.service()) as server:
        Run(tmp_path / "there", ask(server.url), hearing_check=False).ask([(TASK, examples)])
    here, there = (read_predictions(tmp_path / name / "predictions.jsonl") for name in ("here", "there"))
    assert [one.text for one in here] == [one.text for one in there]
    assert [one.tokens for one in here] == [one.tokens for one in there]
    assert [one.key for one in here] != [one.key for one in there]


def test_the_client_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ConfigError, match=r"needs the openai client: pip install 'qwen2-audio\[eval\]'"):
        Endpoint("http://127.0.0.1:1")
