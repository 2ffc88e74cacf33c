"""Files of answers in the forms that other suites write."""

import json

import pytest

from qwen2_audio.errors import ConfigError, EvaluationError
from qwen2_audio.evaluate.foreign import import_answers, read_rows
from qwen2_audio.evaluate.predictions import read_predictions
from qwen2_audio.evaluate.registry.tasks import find_task
from qwen2_audio.evaluate.results import read_results, score_results

OFFICIAL = [
    {"gt": "A DOG BARKS", "response": "<|en|>a dog barks", "source": "librispeech_test_clean", "audio_path": "a.flac"},
    {"gt": "IT'S ONE", "response": "it is two", "source": "librispeech_test_clean", "audio_path": "b.flac"},
]


def imported(tmp_path, task, data, name="answers.json", *, lines=False):
    path = tmp_path / name
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in data) if lines else json.dumps(data)
    path.write_text(text, encoding="utf-8")
    folder = import_answers(path, find_task(task), tmp_path / "out")
    return read_predictions(folder / "predictions.jsonl"), score_results(read_results(folder))["tasks"][task]


@pytest.mark.parametrize("lines", [True, False])
def test_the_official_script_s_list(tmp_path, lines):
    rows, scored = imported(tmp_path, "librispeech-test-clean", OFFICIAL, lines=lines)
    assert [(row.id, row.reference) for row in rows] == [("a.flac", "A DOG BARKS"), ("b.flac", "IT'S ONE")]
    assert scored["metrics"]["wer"]["substitutions"] == 1 and scored["metrics"]["wer"]["reference_tokens"] == 6


def test_the_language_of_one_s_own_answers(tmp_path):
    path = tmp_path / "answers.json"
    path.write_text(json.dumps([{"gt": "两百个", "response": "200个", "id": "a"}]))
    folder = import_answers(path, find_task("asr", language="zh"), tmp_path / "out")
    scored = score_results(read_results(folder))["tasks"]["asr"]
    assert scored["primary"] == "cer" and scored["metrics"]["cer"]["value"] == 0


def test_the_leaderboard_s_manifest(tmp_path):
    data = [{"audio_filepath": "x.wav", "duration": 2.0, "time": 0.1, "text": "a cat", "pred_text": "a cat"}]
    rows, scored = imported(tmp_path, "asr", data, lines=True)
    assert rows[0].text == rows[0].reference == "a cat" and scored["metrics"]["wer"]["value"] == 0


def test_multiple_choice_of_mmau_and_airbench(tmp_path):
    data = [{
        "id": "m1", "audio_id": "./x.wav", "question": "What?", "choices": ["Dog", "Cat"], "answer": "Dog",
        "model_output": "Dog", "task": "sound",
    }]  # fmt: skip
    rows, scored = imported(tmp_path, "mmau-mini", data)
    assert rows[0].choices == ("Dog", "Cat") and rows[0].task == "mmau-mini" and rows[0].columns["task"] == "sound"
    assert scored["metrics"]["accuracy_string_match"]["value"] == 1


def test_airbench_foundation_and_voicebench(tmp_path):
    data = [{
        "path": "a.wav", "question": "Who?", "choice_a": "man", "choice_b": "woman", "answer_gt": "woman", "uniq_id": 7,
        "task_name": "Speaker_Gender_Recognition", "dataset_name": "meld", "response": "B. woman",
    }]  # fmt: skip
    rows, _ = imported(tmp_path, "airbench-foundation", data, lines=True)
    assert (rows[0].id, rows[0].choices, rows[0].text) == ("7", ("man", "woman"), "B. woman")
    open_ = [{"prompt": "Name a dog.", "response": "Rex."}]
    (tmp_path / "more").mkdir()
    rows, scored = imported(tmp_path / "more", "voicebench-alpaca", open_, lines=True)
    assert rows[0].prompt == "Name a dog." and scored["judged"].startswith("no")


def test_rows_without_a_name_are_numbered_and_a_list_may_be_inside(tmp_path):
    data = {"model": "x", "results": [{"gt": "a", "response": "a"}, {"gt": "b", "response": "b"}]}
    rows, _ = imported(tmp_path, "asr", data)
    assert [row.id for row in rows] == ["0#0", "1#1"]


def test_our_own_lines(tmp_path):
    imported(tmp_path, "librispeech-test-clean", OFFICIAL)
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    (tmp_path / "again").mkdir()
    rows, scored = imported(tmp_path / "again", "librispeech-test-clean", lines, lines=True)
    assert [row.text for row in rows] == ["<|en|>a dog barks", "it is two"] and scored["scored"] == 2
    with pytest.raises(EvaluationError, match="has answers to librispeech_test_clean, and meld is of"):
        import_answers(tmp_path / "again" / "answers.json", find_task("meld"), tmp_path / "meld")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no rows; expected a JSON list"),
        ("[]", "holds no rows"),
        ("[1, 2]", "holds no rows"),
        ('{"gt": "a", "response": "a"}\n{"gt": ', "line 2, is no JSON"),
        ('[{"gt": "a", "said": "b"}]', "Row 1 has the columns gt, said; expected an answer in one of response, "),
    ],
)
def test_what_is_no_file_of_answers_is_one_sentence(tmp_path, text, message):
    path = tmp_path / "answers.json"
    path.write_text(text)
    with pytest.raises(EvaluationError, match=message):
        import_answers(path, find_task("asr"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_answers_without_references_are_refused(tmp_path):
    path = tmp_path / "answers.json"
    path.write_text(json.dumps([{"response": "a", "source": "librispeech_test_clean", "audio_path": "a"}]))
    with pytest.raises(
        ConfigError, match=r"has no right answers \(no reference\); expected them in one of gt, reference"
    ):
        import_answers(path, find_task("librispeech-test-clean"), tmp_path / "out")


def test_a_byte_order_mark_and_other_encodings(tmp_path):
    path = tmp_path / "answers.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(OFFICIAL).encode())
    assert len(read_rows(path)) == 2
    path.write_bytes("é".encode("latin-1"))
    with pytest.raises(EvaluationError, match="cannot be read: 'utf-8' codec"):
        read_rows(path)
