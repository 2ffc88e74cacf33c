"""/v1/decisions by OpenAI's client, /v1/systemone in TypeSafe's shape, against a tiny checkpoint behind the engine."""

from __future__ import annotations

import asyncio
import base64

import httpx2 as httpx
import pytest

import qwen2_audio as qa
from kit.clip_files import wav_bytes
from kit.live_server import live
from qwen2_audio.api.service import Service
from qwen2_audio.serve.settings import Settings

openai = pytest.importorskip("openai")
DATA = base64.b64encode(wav_bytes()).decode()
SOUND = {"type": "input_audio", "input_audio": {"data": DATA, "format": "wav"}}
QUESTIONS: list[dict] = [
    {"type": "predicate", "instructions": "Is it loud?", "name": "loud"},
    {
        "type": "choice",
        "instructions": [{"type": "input_text", "text": "What is it?"}],
        "choices": [{"value": "dog", "description": "it barks"}, {"value": "rain"}, {"value": True}],
    },
    {"type": "score", "instructions": "How loud?", "levels": [{"label": "low"}, {"label": "mid"}, {"label": "high"}]},
]


@pytest.fixture(scope="module")
def server(tiny_chat):
    with live(Service(tiny_chat.model, tiny_chat.processor, name="tiny"), Settings(grace=1)) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def http(server):
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def test_openai_s_client_reads_typed_answers(client, tiny_chat):
    messages = [{"type": "message", "role": "user", "content": [SOUND, {"type": "input_text", "text": "Listen."}]}]
    found = client.decisions.create(model="tiny", input=messages, questions=QUESTIONS)
    loud, what, level = found.answers
    assert [one.type for one in found.answers] == ["predicate", "choice", "score"]
    assert (loud.name, what.name) == ("loud", None)
    about = [qa.user("Listen.", audio=wav_bytes())]
    ours = tiny_chat.decide(about, [
        {"question": "Is it loud?"},
        {"question": "What is it?", "choices": {"dog": "it barks", "rain": "", True: ""}},
        {"question": "How loud?", "levels": ["low", "mid", "high"]},
    ])  # fmt: skip
    assert loud.probability == pytest.approx(ours[0].probability, abs=1e-5)
    assert [one.probability for one in what.probabilities] == pytest.approx(list(ours[1].probabilities), abs=1e-5)
    assert [one.value for one in what.probabilities] == ["dog", "rain", True]
    assert what.choice == ours[1].choice and what.confidence == pytest.approx(ours[1].confidence, rel=1e-3)
    assert [(one.label, one.value) for one in level.probabilities] == [("low", 0), ("mid", 1), ("high", 2)]
    assert level.score == pytest.approx(ours[2].score, abs=1e-5)
    assert loud.diagnostics["label_mass"] == pytest.approx(ours[0].label_mass, rel=1e-3)
    assert found.usage.input_tokens == found.usage.total_tokens == sum(one.usage.prompt_tokens for one in ours)
    assert found.usage.output_tokens == 0 and found.usage.input_tokens_details.cached_tokens > 0


def test_words_and_text_alone(client):
    options = {"labels": "words"}
    found = client.decisions.create(model="tiny", input="It barks.", questions=QUESTIONS[1:2], extra_body=options)
    (answer,) = found.answers
    assert sum(one.probability for one in answer.probabilities) == pytest.approx(1)
    assert answer.diagnostics["argmax_is_label"] is None


def test_systemone(http, tiny_chat):
    body = {
        "model": "tiny", "state": {"room": "kitchen"}, "audio": [DATA, f"data:audio/wav;base64,{DATA}", SOUND],
        "instructions": "Be brief.",
        "questions": {
            "loud": {"type": "noul", "instructions": "Is it loud?", "criteria": {"true": "over 80 dB"}},
            "what": {"type": "choice", "instructions": "What is it?", "criteria": {"dog": "it barks", "rain": None}},
            "level": {"type": "score", "instructions": "How loud?", "criteria": ["low", "high"]},
        },
    }  # fmt: skip
    found = http.post("/v1/systemone", json=body)
    assert found.status_code == 200, found.text
    answers = found.json()["answers"]
    assert list(answers) == ["loud", "what", "level"]
    assert 0 < answers["loud"]["noul"] < 1 and answers["loud"]["type"] == "noul"
    assert sum(answers["what"]["probabilities"].values()) == pytest.approx(1)
    assert answers["what"]["choice"] in ("dog", "rain") and 0 <= answers["what"]["confidence"] <= 1
    assert answers["level"]["legend"] == {"0": "low", "1": "high"}
    assert answers["level"]["score"] == pytest.approx(answers["level"]["probabilities"]["1"])
    assert set(answers["loud"]["diagnostics"]) == {"label_mass", "argmax_is_label"}
    assert found.json()["usage"]["output_tokens"] == 0 < found.json()["usage"]["input_tokens"]
    clips = [wav_bytes()] * 3
    about = [qa.system("Be brief."), qa.user('{"room": "kitchen"}', audio=clips)]
    ours = tiny_chat.decide(about, {"question": "What is it?", "choices": {"dog": "it barks", "rain": ""}})
    assert list(answers["what"]["probabilities"].values()) == pytest.approx(list(ours.probabilities), abs=1e-5)


@pytest.mark.parametrize(
    ("change", "param", "message"),
    [
        ({"questions": []}, "questions", ""),
        ({"questions": None}, "questions", "is missing"),
        ({"questions": [{"type": "rank", "instructions": "?"}]}, "questions[0].type", "predicate, choice or score"),
        ({"questions": [{"type": ["choice"], "instructions": "?"}]}, "questions[0].type", "is ['choice']"),
        ({"questions": [{**QUESTIONS[0], "name": 5}]}, "questions[0].name", "is a number; expected a string"),
        (
            {"questions": [{**QUESTIONS[1], "choices": [{"value": "a"}, {"value": "b", "description": False}]}]},
            "questions[0]",
            "option False",
        ),
        ({"questions": [{"type": "predicate"}]}, "questions[0].instructions", "expected a string"),
        (
            {"questions": [{"type": "choice", "instructions": "?", "choices": [{"value": "a"}]}]},
            "questions[0]",
            "1 choices",
        ),
        (
            {"questions": [{"type": "choice", "instructions": "?", "choices": ["a", "b"]}]},
            "questions[0].choices[0]",
            "a string",
        ),
        (
            {"questions": [{"type": "choice", "instructions": "?", "choices": [{"value": 3}, {"value": 4}]}]},
            "questions[0]",
            "option 3",
        ),
        ({"questions": [{**QUESTIONS[0], "weight": 1}]}, "questions[0].weight", "not a field"),
        ({"input": []}, "input", "is empty"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]", "of the type 'item_reference'"),
        ({"input": [{"type": [], "role": "user", "content": "x"}]}, "input[0]", "a list as its type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]", "image"),
        (
            {"input": [{"role": "user", "content": [{**SOUND, "input_audio": {"data": "AAAA"}}]}]},
            "input[0].content[0]",
            "",
        ),
        ({"labels": "numbers"}, "labels", ""),
        ({"temperature": 1}, "temperature", "not a field"),
        ({"model": "other"}, "model", "no model"),
        ({"questions": QUESTIONS[:1] * 201}, None, "201 questions"),
        (
            {"questions": [QUESTIONS[0], {**QUESTIONS[0], "instructions": "x" * 16385}]},
            "questions[1]",
            "16385 characters; expected 16384 at most",
        ),
        (
            {"questions": [{**QUESTIONS[1], "choices": [{"value": "dog"}, {"value": "b", "description": "x" * 4096}]}]},
            "questions[0]",
            "a choice of 4097 characters; expected 4096 at most",
        ),
    ],
)
def test_what_is_wrong_is_named(http, change, param, message):
    body = {"input": "It barks.", "questions": QUESTIONS[:1], **change}
    found = http.post("/v1/decisions", json={key: value for key, value in body.items() if value is not None})
    assert found.status_code in (400, 404), found.text
    error = found.json()["error"]
    assert message in error["message"] and (param is None or error["param"] == param)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"state": ""}, "state"),
        ({"images": ["x"]}, "images"),
        ({"audio": ["AAAA"]}, "audio[0]"),
        ({"audio": [{"type": "text", "texts": "x"}]}, "audio[0].texts"),
        (
            {"questions": {"q": {"type": "noul", "instructions": "?", "criteria": {"maybe": "x"}}}},
            "questions.q.criteria.maybe",
        ),
        ({"questions": {"q": {"type": "choice", "instructions": "?", "criteria": ["a", "b"]}}}, "questions.q.criteria"),
        ({"questions": {"q": {"type": "score", "instructions": "?", "criteria": {"a": "b"}}}}, "questions.q.criteria"),
    ],
)
def test_what_is_wrong_in_systemone(http, change, param):
    body = {"state": "It barks.", "questions": {"q": {"type": "noul", "instructions": "Is it loud?"}}, **change}
    found = http.post("/v1/systemone", json=body)
    assert (found.status_code, found.json()["error"]["param"]) == (400, param), found.text


def test_questions_are_written_off_the_event_loop(http, monkeypatch):
    on_loop, submit = [], Service.submit_decisions

    def recorded(*given, **options):
        on_loop.append(asyncio._get_running_loop() is not None)
        return submit(*given, **options)

    monkeypatch.setattr(Service, "submit_decisions", recorded)
    http.post("/v1/decisions", json={"input": "It barks.", "questions": QUESTIONS[:1]}).raise_for_status()
    assert on_loop == [False]
