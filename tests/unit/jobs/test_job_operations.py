"""Jobs that hold answers to a schema, decide or embed, with nano: what is written, and that it is the Python API's."""

from __future__ import annotations

import csv
import json
import math
import pickle
import re
import shutil

import numpy as np
import pytest

import qwen2_audio as qa
from kit.clip_files import wav_bytes
from qwen2_audio.errors import BusyError
from qwen2_audio.jobs import model_worker
from qwen2_audio.jobs.config import JobConfig
from qwen2_audio.jobs.export import export
from qwen2_audio.jobs.reading import answered
from qwen2_audio.jobs.run import Job, run_job
from qwen2_audio.jobs.runner import InThisProcess, JobRow, Work
from qwen2_audio.jobs.status import status_of

CLIPS = qa.nano_path() / "clips"
SCHEMA = {
    "type": "object",
    "properties": {"sound": {"enum": ["dog", "cat", "rain"]}, "loud": {"type": "boolean"}},
    "required": ["sound", "loud"],
    "additionalProperties": False,
}
GREEDY = {"temperature": 0.0, "max_tokens": 40}
QUESTIONS = [
    {"question": "Is this {kind}?"},
    {"question": "What is it?", "choices": ["{kind}", "something else"], "labels": "words"},
    {"question": "How loud is it?", "levels": ["quiet", "loud"]},
]
JOBS = {
    "schema": {"ask": "Is this {kind}?", "json_schema": SCHEMA, "sampling": GREEDY},
    "decision": {"decide": "Is this {kind}?", "choices": {"yes": "it is {kind}", "no": ""}},
    "decisions": {"decide": QUESTIONS},
    "vector": {"embed": {"source": "encoder"}},
    "vectors": {"embed": {"source": "projector", "pooling": "none", "normalize": False}},
}


@pytest.fixture(scope="module")
def chat():
    return qa.load("nano", dtype="float32", device="cpu")


@pytest.fixture
def shared(chat, monkeypatch):
    """Runs jobs in this process with the one loaded nano."""
    monkeypatch.setattr(model_worker, "load", lambda *_, **__: chat)
    monkeypatch.setattr(model_worker.ModelWorker, "close", lambda self: None)
    return InThisProcess()


@pytest.fixture
def job(tmp_path):
    """The keys of a job over four clips, of which one is too long; `kind` is a column."""
    (tmp_path / "long.wav").write_bytes(wav_bytes(31.0))
    clips = [CLIPS / "dog.wav", CLIPS / "rain.wav", tmp_path / "long.wav", CLIPS / "cat.wav"]
    rows = [{"id": clip.stem, "audio": str(clip), "kind": f"a {clip.stem}"} for clip in clips]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(name, **keys):
        return {"input": str(tmp_path / "rows.jsonl"), "output": str(tmp_path / "out"), "rows_per_part": 3,
                "workers": 0, **JOBS[name], **keys}  # fmt: skip

    return make


def read(folder, place="parts"):
    return [json.loads(line) for path in sorted((folder / place).iterdir()) for line in path.read_text().splitlines()]


def test_an_answer_that_is_held_to_a_schema_is_parsed(tmp_path, chat, shared, job):
    pytest.importorskip("llguidance")
    assert run_job(job("schema"), runner=shared).progress.done == 3
    params = qa.SamplingParams(**GREEDY, json_schema=SCHEMA)
    for row in read(tmp_path / "out"):
        expected = chat.chat([qa.user(f"Is this a {row['id']}?", audio=row["audio"])], params)
        assert (row["text"], row["finish_reason"]) == (expected.text, "stop")
        assert row["parsed"] == json.loads(row["text"]) and list(row["parsed"]) == ["sound", "loud"]
    (error,) = read(tmp_path / "out", "errors")
    assert (error["id"], error["kind"]) == ("long", "LongClipError")


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        (
            {"max_tokens": 3},
            r"^The answer ended \(length\) after 3 tokens, before its JSON was whole: '\{.*'; raise sampling",
        ),
        ({"stop": [","]}, r"^The answer is no JSON \(.*\): '\{.*'\.$"),
    ],
    ids=["budget", "stop"],
)
def test_an_answer_that_is_not_whole_is_an_error_that_says_so(tmp_path, shared, job, sampling, words):
    pytest.importorskip("llguidance")
    assert run_job(job("schema", sampling={**GREEDY, **sampling}), runner=shared).progress.failed == 4
    errors = [row for row in read(tmp_path / "out", "errors") if row["id"] != "long"]
    assert len(errors) == 3 and {row["kind"] for row in errors} == {"AnswerError"}
    for row in errors:
        assert re.search(words, row["error"]), row["error"]


def test_a_long_clip_s_answer_is_held_too_where_it_is_heard_in_parts(tmp_path, shared, job):
    pytest.importorskip("llguidance")
    assert run_job(job("schema", long="native"), runner=shared).exit_status == 0
    assert [row["parsed"] == json.loads(row["text"]) for row in read(tmp_path / "out")] == [True] * 4


def test_a_schema_that_is_too_complex_on_the_way_costs_its_row_only(monkeypatch, shared, job):
    pytest.importorskip("llguidance")
    from qwen2_audio.engine.structured.grammar import Matcher

    def too_complex(self, token):
        raise qa.ConfigError("The answer cannot go on, as its grammar is too complex.")

    monkeypatch.setattr(Matcher, "accepts", too_complex)
    summary = run_job(job("schema"), runner=shared)
    assert summary.progress.failed == 4
    assert sum("too complex" in sentence for _, sentence in summary.errors) == 3


def test_one_question_is_decided_as_in_python(tmp_path, chat, shared, job):
    assert run_job(job("decision", system="You hear sounds."), runner=shared).progress.done == 3
    for row in read(tmp_path / "out"):
        kind = f"a {row['id']}"
        asked = {"question": f"Is this {kind}?", "choices": {"yes": f"it is {kind}", "no": ""}}
        expected = chat.decide([qa.system("You hear sounds."), qa.user(audio=row["audio"])], asked)
        assert row["label"] == expected.choice and row["score"] is None
        assert list(row["probabilities"]) == ["yes", "no"]
        assert list(row["probabilities"].values()) == pytest.approx(expected.probabilities, abs=1e-4)
        assert row["label_mass"] == pytest.approx(expected.label_mass, rel=1e-3)
        assert row["confidence"] == pytest.approx(expected.confidence, rel=1e-3)
        assert row["heard"] == pytest.approx(expected.heard[0].seconds) and row["usage"]["audio_tokens"] > 0
    assert [row["kind"] for row in read(tmp_path / "out", "errors")] == ["LongClipError"]


def test_several_questions_are_lists_in_their_order(tmp_path, chat, shared, job):
    run_job(job("decisions"), runner=shared)
    for row in read(tmp_path / "out"):
        kind = f"a {row['id']}"
        asked = [
            {"question": f"Is this {kind}?"},
            {"question": "What is it?", "choices": [kind, "something else"], "labels": "words"},
            {"question": "How loud is it?", "levels": ["quiet", "loud"]},
        ]
        expected = chat.decide(row["audio"], asked)
        assert row["label"] == ["yes" if expected[0].choice else "no", expected[1].choice, expected[2].choice]
        assert [list(shares) for shares in row["probabilities"]] == [
            ["yes", "no"], [kind, "something else"], ["quiet", "loud"]
        ]  # fmt: skip
        assert row["score"][:2] == [None, None] and row["score"][2] == pytest.approx(expected[2].score, abs=1e-4)
        assert row["label_mass"] == pytest.approx([one.label_mass for one in expected], rel=1e-3)


@pytest.mark.parametrize("name", ["vector", "vectors"])
def test_clips_are_embedded_as_in_python(tmp_path, chat, shared, job, name):
    run_job(job(name), runner=shared)
    for row in read(tmp_path / "out"):
        (expected,) = chat.embed([row["audio"]], **JOBS[name]["embed"])
        found = np.array(row["embedding"], np.float32)
        assert found.shape == expected.shape and np.abs(found - expected).max() < 1e-4


def test_a_layer_that_is_not_there_ends_the_job_with_its_sentence(shared, job):
    with pytest.raises(qa.ConfigError, match="layer is 99, and the encoder has the states 0 to"):
        run_job(job("vector", embed={"source": "encoder", "layer": 99}), runner=shared)


class StoppedError(Exception):
    pass


def close_enough(one, other) -> bool:
    """Equal but for the last digits, which depend on what a row is computed with."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close_enough(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(close_enough, one, other))
    return math.isclose(one, other, rel_tol=1e-3, abs_tol=1e-5) if isinstance(one, float) else one == other


@pytest.mark.exhaustive
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", ["schema", "decisions", "vector"])
def test_on_ray_the_rows_are_those_of_this_process(tmp_path, shared, job, name):
    pytest.importorskip("ray")
    pytest.importorskip("llguidance")
    from qwen2_audio.jobs.ray_runner import OnRay

    keys = job(name, dtype="float32", device="cpu")
    run_job(keys, runner=shared)
    summary = run_job({**keys, "output": str(tmp_path / "ray"), "workers": 1}, runner=OnRay("local", cpus=0.5))
    assert (summary.progress.done, summary.progress.failed) == (3, 1)
    assert close_enough(read(tmp_path / "out"), read(tmp_path / "ray"))


@pytest.mark.parametrize("name", JOBS)
def test_workers_elsewhere_need_no_file_of_the_job(job, name):
    work = Work(JobConfig.of(job(name)))
    assert pickle.loads(pickle.dumps(work)) == work


@pytest.mark.parametrize(
    ("name", "format"),
    [(name, format) for name in JOBS for format in ("jsonl", "parquet") if (name, format) != ("vectors", "jsonl")],
)
def test_a_stopped_job_goes_on_is_retried_and_exported(tmp_path, shared, job, name, format):
    """One row out for each row in, once; a retry keeps the values of rows that were right."""
    pytest.importorskip("pyarrow.parquet")
    pytest.importorskip("llguidance")
    keys = job(name, format=format)

    def stop(progress):
        if progress.asked == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        Job(JobConfig.of(keys), shared, advance=stop).run()
    assert (status_of(tmp_path / "out").done + status_of(tmp_path / "out").failed) == 2
    summary = run_job(keys, runner=shared)
    assert (summary.progress.before, summary.progress.asked) == (2, 2)
    assert export(tmp_path / "out", tmp_path / "first.jsonl") == 3
    first = [json.loads(line) for line in (tmp_path / "first.jsonl").read_text().splitlines()]
    assert [row["id"] for row in first] == ["dog", "rain", "cat"]
    run_job({**keys, "output": str(tmp_path / "calm")}, runner=shared)
    export(tmp_path / "calm", tmp_path / "calm.jsonl")
    assert close_enough(first, [json.loads(line) for line in (tmp_path / "calm.jsonl").read_text().splitlines()])

    shutil.copy(CLIPS / "bell.wav", tmp_path / "long.wav")  # it was repaired
    assert Job(JobConfig.of(keys), shared, retry=True).run().exit_status == 0
    assert export(tmp_path / "out", tmp_path / "all.jsonl") == 4
    rows = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert [row for row in rows if row["id"] != "long"] == first
    check_tables(tmp_path, rows)
    status = status_of(tmp_path / "out")
    assert (status.done, status.failed, status.asked["operation"]) == (4, 0, next(iter(JOBS[name])))
    with pytest.raises(qa.Qwen2AudioError, match="holds another job"):
        run_job(job("vector", format=format, embed={"source": "encoder", "layer": 1}), runner=shared)


def check_tables(folder, rows) -> None:
    """The same rows as Parquet and CSV; the types of Parquet do not depend on what the parts are."""
    import pyarrow.parquet

    assert export(folder / "out", folder / "all.parquet") == export(folder / "out", folder / "all.csv") == 4
    table = pyarrow.parquet.read_table(folder / "all.parquet")
    types = {name: str(table.schema.field(name).type) for name in table.column_names}
    expected = {
        "parsed": ["string"], "probabilities": ["string"], "label": ["string", "list<element: string>"],
        "label_mass": ["double", "list<element: double>"], "score": ["double", "list<element: double>"],
        "embedding": ["list<element: float>", "list<element: list<element: float>>"],
    }  # fmt: skip
    assert all(types[name] in expected[name] for name in expected.keys() & types.keys())
    as_json = {"parsed", "probabilities"} & types.keys()
    found = [row | {name: json.loads(row[name]) for name in as_json} for row in table.to_pylist()]
    assert found == rows
    before = csv.field_size_limit(1 << 24)
    with (folder / "all.csv").open(newline="") as file:
        cells = list(csv.DictReader(file))
    csv.field_size_limit(before)
    assert [row["id"] for row in cells] == [row["id"] for row in rows]
    for name in expected.keys() & types.keys() - {"label", "label_mass", "score"}:
        assert [json.loads(row[name]) for row in cells] == [row[name] for row in rows]


def test_a_row_of_many_requests_waits_for_room_in_the_queue(monkeypatch):
    """It is no error of the row, and rows are asked as soon as those before them are answered."""
    from qwen2_audio.datasets.row import Row
    from qwen2_audio.jobs import reading

    monkeypatch.setattr(reading, "_PAUSE", 0.0001)
    open_now, refusals = [], []

    class Narrow:
        def read(self, item):
            return None

        def submit(self, item, read):
            if len(open_now) >= 2:
                refusals.append(item.number)
                raise BusyError("as many as may")
            open_now.append(item.number)
            return self

        def done(self):
            return len(open_now) > 0

        def result(self):
            open_now.pop()
            return {}

    rows = (JobRow(number, Row(str(number), None, {}, "here")) for number in range(40))
    outcomes = list(answered(Narrow(), rows, 16))
    assert sorted(outcome.number for outcome in outcomes) == list(range(40))
    assert all(outcome.error is None for outcome in outcomes) and refusals

    class Shut(Narrow):
        def submit(self, item, read):
            raise BusyError("as many as may")

    monkeypatch.setattr(reading, "_ROOM_WITHIN", 0.001)
    (outcome,) = answered(Shut(), iter([JobRow(0, Row("0", None, {}, "here"))]), 16)
    assert outcome.kind == "BusyError"
