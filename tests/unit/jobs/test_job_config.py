"""A job's file: what it takes, and what it refuses with which sentence."""

from __future__ import annotations

import json

import pytest

from qwen2_audio.api.decisions import Question
from qwen2_audio.errors import ConfigError, PromptError
from qwen2_audio.jobs.config import JobConfig, parse_changes
from qwen2_audio.jobs.operations import OPERATIONS, columns_of, decisive, operation_of
from qwen2_audio.jobs.questions import filled, questions_of
from qwen2_audio.jobs.template import check_names, fill, names_in

MINIMAL = 'model = "nano"\ninput = "clips"\noutput = "out"\nask = "What is that sound?"\n'
ASKED = {
    "ask": {"ask": "What?"}, "decide": {"decide": "Loud?"}, "embed": {"embed": True},
    "transcribe": {"transcribe": True}, "translate": {"translate": "en"},
}  # fmt: skip
TABLE = {"input": "clips", "output": "out"}


def test_four_lines_are_a_job_and_a_byte_order_mark_is_none_of_them(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text("\ufeff" + MINIMAL, encoding="utf-8")
    config = JobConfig.of(path)
    assert (config.model, config.input, config.output, config.workers) == ("nano", "clips", "out", 1)
    assert operation_of(config)[0] == "ask"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"asks": "x"}, "there is no key 'asks'. Did you mean 'ask'?"),
        ({"sampling.temprature": 0.0}, "there is no key 'sampling.temprature'. Did you mean 'temperature'?"),
        ({"format": "jsonlines"}, "format is 'jsonlines'; expected one of 'jsonl', 'parquet'. Did you mean 'jsonl'?"),
        ({"workers": "two"}, "workers is 'two'; expected a whole number."),
        ({"rows_per_part": 0}, "rows_per_part is 0; expected 1 or more."),
        ({"shard": "3/2"}, "shard is '3/2'; expected number/how many, such as '2/4'."),
        ({"sampling.top_p": 2.0}, "top_p is 2.0; expected a probability between 0 and 1."),
        ({"input": ""}, "'input' is empty; expected a path."),
        ({"decide": 5}, "decide is 5; expected a string."),
        ({"choices": "dog"}, "choices is 'dog'; expected a list."),
        ({"embed": "yes"}, "embed is 'yes'; expected true or false."),
        ({"embed.laier": 2}, "there is no key 'embed.laier'. Did you mean 'layer'?"),
        ({"embed.source": "ear"}, "embed.source is 'ear'; expected one of 'language_model', 'encoder', 'projector'."),
        ({"json_schema": 5}, "json_schema is 5; expected a table."),
        (
            {"json_schema": "nowhere.json"},
            "json_schema 'nowhere.json' cannot be read as JSON: No such file or directory.",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_the_file_s_name(tmp_path, changes, sentence):
    path = tmp_path / "job.toml"
    path.write_text(MINIMAL)
    with pytest.raises(ConfigError) as found:
        JobConfig.of(path, changes)
    assert str(found.value) == f"{path}: {sentence}"


def test_a_missing_key_is_named(tmp_path):
    with pytest.raises(ConfigError, match="'output' is missing"):
        JobConfig.of({"input": "clips", "ask": "What?"})


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({}, "A job does one of ask, decide, embed, transcribe, translate; found none of them."),
        (
            {"ask": "What?", "transcribe": True},
            "A job does one of ask, decide, embed, transcribe, translate; found ask and transcribe.",
        ),
        (
            {"embed": True, "json_schema": {}},
            "'json_schema' is a key of ask, and this job's operation is embed; leave it out.",
        ),
        (
            {"ask": "What?", "choices": ["a", "b"]},
            "'choices' is a key of decide, and this job's operation is ask; leave it out.",
        ),
        ({"decide": "Which?", "choices": ["a"]}, "decide: The question 'Which?' has 1 choices; expected 2 to 26."),
        (
            {"decide": "Which?", "choices": ["a", "b"], "levels": ["c", "d"]},
            "decide: A question has choices and levels; give one of them.",
        ),
        (
            {"decide": [{"question": "Loud?"}], "labels": "words"},
            "'labels' belongs to one question; write it into the tables of 'decide'.",
        ),
        (
            {"decide": [{"question": "Loud?", "choises": ["a", "b"]}]},
            "decide: A question has the key 'choises'; expected question, choices, levels, labels. "
            "Did you mean 'choices'?",
        ),
        (
            {"decide": "Which?", "choices": {"a": "", "b": "is {loud"}},
            "The question 'is {loud' has '{' at character 4; expected {column}, or '{{' for the brace itself.",
        ),
        (
            {"ask": "What?", "language": "en"},
            "'language' is a key of transcribe, translate, and this job's operation is ask; leave it out.",
        ),
        (
            {"transcribe": True, "sampling": {"temperature": 0.5}},
            "'sampling' is a key of ask, and this job's operation is transcribe; leave it out.",
        ),
        (
            {"ask": "Is it {loud?"},
            "The question 'Is it {loud?' has '{' at character 7; expected {column}, or '{{' for the brace itself.",
        ),
    ],
)
def test_a_job_has_one_operation_and_only_its_keys(keys, sentence):
    with pytest.raises(ConfigError) as found:
        operation_of(JobConfig.of({**TABLE, **keys}))
    assert str(found.value) == sentence


def test_values_of_the_command_line_are_toml_or_text():
    texts = ["workers=2", "ask=Is it loud?", "sampling.temperature=0.5", "transcribe=true", 'output="a b"']
    assert parse_changes(texts) == {
        "workers": 2, "ask": "Is it loud?", "sampling.temperature": 0.5, "transcribe": True, "output": "a b",
    }  # fmt: skip
    with pytest.raises(ConfigError, match="--set got 'workers'; expected key=value"):
        parse_changes(["workers"])


def test_what_changes_no_answer_does_not_make_another_job():
    first = decisive(JobConfig.of({**TABLE, "ask": "What?"}))
    assert first == decisive(JobConfig.of({**TABLE, "ask": "What?", "workers": 3, "in_flight": 8, "max_errors": 1}))
    assert first != decisive(JobConfig.of({**TABLE, "ask": "Who?"}))
    assert first != decisive(JobConfig.of({**TABLE, "ask": "What?", "sampling": {"temperature": 0.0}}))


def test_a_job_from_before_these_keys_is_the_same_job():
    assert decisive(JobConfig.of({**TABLE, "ask": "What?"})).keys() == {
        "operation",
        "ask",
        "system",
        "long",
        "sampling",
    }


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"ask": "?", "json_schema": {"properties": {"a": {}, "b": {}}}},
         {"ask": "?", "json_schema": {"properties": {"b": {}, "a": {}}}}),
        ({"decide": "?", "choices": ["a", "b"]}, {"decide": "?", "choices": ["b", "a"]}),
        ({"decide": "?", "choices": {"a": "x", "b": "y"}}, {"decide": "?", "choices": {"b": "y", "a": "x"}}),
        ({"decide": "?"}, {"decide": [{"question": "?"}]}),
        ({"decide": "?"}, {"decide": "?", "labels": "words"}),
        ({"embed": True}, {"embed": {"layer": -2}}),
        ({"embed": True}, {"embed": {"source": "encoder"}}),
    ],
    ids=["schema", "choices", "descriptions", "a list of one", "labels", "layer", "source"],
)  # fmt: skip
def test_what_decides_an_answer_is_the_job_s_identity_in_its_order(one, other):
    first, second = (decisive(JobConfig.of({**TABLE, **keys})) for keys in (one, other))
    assert first != second
    assert json.loads(json.dumps(first)) == first, "job.json gives it back as it is"


def test_a_vector_is_asked_for_in_two_ways_that_are_one_job():
    jobs = [JobConfig.of({**TABLE, "embed": keys}) for keys in (True, {}, {"pooling": "last", "layer": -1})]
    assert decisive(jobs[0]) == decisive(jobs[1]) == decisive(jobs[2])
    assert columns_of(decisive(jobs[0]))["embedding"] == "vector"
    assert columns_of(decisive(JobConfig.of({**TABLE, "embed": {"pooling": "none"}})))["embedding"] == "vectors"


def test_columns_of_a_job_that_another_version_made_are_not_known():
    assert columns_of({"operation": "sing", "sing": True}) == columns_of({}) == {}


def test_a_schema_is_a_file_or_a_table_and_what_cannot_be_honoured_is_refused(tmp_path):
    pytest.importorskip("llguidance")
    schema = {"type": "object", "properties": {"loud": {"type": "boolean"}}}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    by_file = JobConfig.of({**TABLE, "ask": "What?", "json_schema": str(tmp_path / "schema.json")})
    by_table = JobConfig.of({**TABLE, "ask": "What?", "json_schema": schema})
    assert by_file == by_table and decisive(by_file) == decisive(by_table)
    assert columns_of(decisive(by_file))["parsed"] == "json"
    refused = JobConfig.of({**TABLE, "ask": "What?", "json_schema": {"type": "array", "uniqueItems": True}})
    with pytest.raises(ConfigError, match=r"json_schema cannot be honoured: .*uniqueItems"):
        operation_of(refused)


def test_questions_and_choices_take_the_row_s_values():
    question = {"question": "Who is it, {n}?", "choices": {"{a}": "as {b}", "nobody": ""}, "labels": "words"}
    values = {"n": 3, "a": "Ann", "b": "Bob"}
    assert filled(question, values) == {
        "question": "Who is it, 3?", "choices": {"Ann": "as Bob", "nobody": ""}, "labels": "words",
    }  # fmt: skip
    assert filled({"question": "?", "levels": ["{a}", "b"]}, values)["levels"] == ["Ann", "b"]
    with pytest.raises(PromptError, match="The row makes two choices the same: nobody, nobody"):
        filled(question, {**values, "a": "nobody"})
    with pytest.raises(PromptError, match=r"names {a}, and the row has no such value"):
        filled(question, {"n": 1})


@pytest.mark.parametrize("choices", [[True, "not sure"], {"a dog": None, "{a}": "as {b}"}])
def test_choices_may_be_all_that_m_decide_takes(choices):
    config = JobConfig.of({**TABLE, "decide": "Which?", "choices": choices})
    (question,) = questions_of(config)
    assert decisive(config)["choices"]
    new = filled(question, {"a": "Ann", "b": "Bob"})["choices"]
    assert new == ([True, "not sure"] if isinstance(choices, list) else {"a dog": None, "Ann": "as Bob"})
    with pytest.raises(ConfigError, match="decide: A question is a Question; expected a dict"):
        questions_of(JobConfig.of({**TABLE, "decide": [Question.of(question)]}))


def test_each_operation_is_a_key_of_a_job_and_its_worker_side_is_there():
    from importlib import import_module

    for name, kind in OPERATIONS.items():
        assert hasattr(JobConfig, "__dataclass_fields__") and name in JobConfig.__dataclass_fields__
        module, _, cls = kind.factory.partition(":")
        made = getattr(import_module(f"qwen2_audio.jobs.{module}"), cls)
        assert all(hasattr(made, method) for method in ("read", "submit", "close"))
        asked = decisive(JobConfig.of({**TABLE, **ASKED[name]}))
        assert {"heard", "usage", "notes"} <= kind.columns(asked).keys() == columns_of(asked).keys()


def test_a_row_s_seed_is_its_own():
    sampling = JobConfig.of({**TABLE, "ask": "What?", "sampling": {"seed": 7}}).sampling
    assert [sampling.params(number).seed for number in (0, 5)] == [7, 12]


def test_a_question_takes_the_row_s_values():
    values = {"speaker": "Ann", "n": 3, "tags": ["a", "ü"], "empty": None}
    assert fill("Is {speaker} number {n}? {{yes}} {tags}", values) == 'Is Ann number 3? {yes} ["a", "ü"]'
    assert names_in("{a} and {b} and {a}") == ["a", "b"]
    for name in ("empty", "missing"):
        with pytest.raises(PromptError, match=f"names {{{name}}}, and the row has no such value"):
            fill(f"{{{name}}}", values)


def test_a_column_that_the_corpus_has_not_is_refused_before_it_starts():
    with pytest.raises(ConfigError) as found:
        check_names("Is {speeker} angry?", {"id": "1", "speaker": "Ann"})
    assert str(found.value) == (
        "The question names {speeker}; expected one of the corpus's columns: id, speaker. Did you mean 'speaker'?"
    )
