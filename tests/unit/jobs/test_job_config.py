"""A job's file: what it takes, and what it refuses with which sentence."""

from __future__ import annotations

import pytest

from qwen2_audio.errors import ConfigError, PromptError
from qwen2_audio.jobs.config import JobConfig, parse_changes
from qwen2_audio.jobs.operations import OPERATIONS, decisive, operation_of
from qwen2_audio.jobs.template import check_names, fill, names_in

MINIMAL = 'model = "nano"\ninput = "clips"\noutput = "out"\nask = "What is that sound?"\n'
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
        ({}, "A job does one of ask, transcribe, translate; found none of them."),
        (
            {"ask": "What?", "transcribe": True},
            "A job does one of ask, transcribe, translate; found ask and transcribe.",
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


def test_each_operation_is_a_key_of_a_job_and_its_worker_side_is_there():
    from importlib import import_module

    for name, kind in OPERATIONS.items():
        assert hasattr(JobConfig, "__dataclass_fields__") and name in JobConfig.__dataclass_fields__
        module, _, cls = kind.factory.partition(":")
        made = getattr(import_module(f"qwen2_audio.jobs.{module}"), cls)
        assert all(hasattr(made, method) for method in ("read", "submit", "close"))
        assert {"text", "heard", "finish_reason", "usage"} <= kind.columns.keys()


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
