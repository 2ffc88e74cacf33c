"""Files for the benchmarks' own scripts: their keys, and the same scores when they are read again."""

import json

import pytest

from qwen2_audio.errors import ConfigError
from qwen2_audio.evaluate.example import Prediction
from qwen2_audio.evaluate.exports import FORMATS, export, exported, formats_of
from qwen2_audio.evaluate.foreign import import_answers
from qwen2_audio.evaluate.predictions import read_predictions
from qwen2_audio.evaluate.registry.tasks import TASKS
from qwen2_audio.evaluate.score.score import score

CHOICES = ("a dog", "a cat", "a bird", "rain")
WHAT = {"question": "What?", "path": "1.wav", "uniq_id": 1}
COLUMNS = {
    "mmau-mini": {
        "question": "What?",
        "task": "sound",
        "dataset": "AudioSet",
        "category": ["x"],
        "audio_id": "./a/1.wav",
    },
    "mmar": {"question": "What?", "modality": "mix-sound-music", "source": "a site", "audio_path": "./audio/1.wav"},
    "mmsu": {"question": "What?", "category": "Perception", "sub-category": "Semantics", "task_name": "t"},
    "airbench-foundation": {**WHAT, "task_name": "Sound_AQA", "dataset_name": "avqa"},
    "airbench-chat": {**WHAT, "task_name": "sound_QA", "dataset_name": "clotho"},
    "voicebench-obqa": {"prompt": "Which?"},
    "voicebench-bbh": {"prompt": "Is it?", "id": "navigate_1"},
    "voicebench-ifeval": {
        "prompt": "x",
        "key": 7,
        "instruction_id_list": ["punctuation:no_comma"],
        "kwargs": [{"n": None}],
    },
}
ANSWERS = {
    "librispeech-test-clean": ("IT'S A DOG", "it's a cat", ()),
    "covost2-en-de": ("Das ist ein guter Hund.", "Das ist ein guter Mann.", ()),
    "meld": ("joy", "Joy", ()),
    "mmau-mini": ("a cat", "a cat", CHOICES),
    "mmar": ("a cat", "a bird", CHOICES),
    "mmsu": ("a cat", "B", CHOICES),
    "airbench-foundation": ("a cat", "B", CHOICES),
    "airbench-chat": ("A cat.", "It is a cat.", ()),
    "voicebench-obqa": ("B", "The answer is B.", ()),
    "voicebench-bbh": ("yes", "Yes.", ()),
    "voicebench-ifeval": (None, "One two.", ()),
}
SOURCES = {"airbench-foundation": "Sound_AQA_avqa", "airbench-chat": "sound_QA"}
KEYS = {
    "official": {"gt", "response", "source", "audio_path"},
    "official-chat": {"idx", "response", "audio_path"},
    "mmau": {"id", "audio_id", "question", "choices", "answer", "model_output", "model_prediction"},
    "mmar": {"id", "audio_path", "choices", "answer", "answer_prediction", "modality"},
    "airbench": {"path", "question", "answer_gt", "task_name", "dataset_name", "uniq_id", "response"},
    "mmsu": {"id", "question", "choice_a", "choice_d", "answer_gt", "response", "category"},
    "voicebench": {"prompt", "response"},
    "open-asr": {"audio_filepath", "duration", "text", "pred_text"},
}


def answer(name):
    reference, text, choices = ANSWERS[name]
    source = SOURCES.get(name) or TASKS[name].sources[0][0]
    return Prediction(
        "k", name, "1", source, "clips/1.wav", text, reference, choices=choices, columns=COLUMNS.get(name, {})
    )


@pytest.mark.parametrize(("name", "format"), [(name, form) for name in ANSWERS for form in formats_of(TASKS[name])])
def test_a_file_has_the_benchmarks_keys_and_gives_the_same_scores(tmp_path, name, format):
    task, prediction = TASKS[name], answer(name)
    failed = Prediction("k", name, "2", prediction.source, "2.wav", "", "x", error="The clip is damaged.")
    path = export(task, [prediction, failed], tmp_path, format)
    text = path.read_text(encoding="utf-8")
    (row,) = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
    assert KEYS[format] <= row.keys()
    if format == "official-chat":  # it has no reference, and is no file to be scored
        return
    folder = import_answers(path, task, tmp_path / "again")
    again = score(task, read_predictions(folder / "predictions.jsonl"))
    first = score(task, [prediction])
    assert again["metrics"] == first["metrics"]
    assert {name: {value: part["metrics"] for value, part in parts.items()} for name, parts in again["by"].items()} == {
        name: {value: part["metrics"] for value, part in parts.items()} for name, parts in first["by"].items()
    }
    if format != "open-asr":
        assert again["sources"].keys() == first["sources"].keys()


def test_speakers_are_found_again_in_paths(tmp_path):
    """The official script's list does not name them, and intervals without them are too narrow."""
    task = TASKS["librispeech-test-clean"]
    clips = (
        "librispeech/test-clean/61/1/61-1-0000.flac",
        "61-1-0001.flac",
        "librispeech/test-clean/121/2/121-2-0003.flac",
    )
    rows = [Prediction("k", task.id, clip, task.sources[0][0], clip, "a", "A") for clip in clips]
    folder = import_answers(export(task, rows, tmp_path), task, tmp_path / "again")
    assert score(task, read_predictions(folder / "predictions.jsonl"))["groups"] == 2


def test_every_task_has_a_format_and_every_format_a_task():
    used = {format for task in TASKS.values() for format in formats_of(task)}
    assert used == FORMATS.keys()


def test_a_format_of_another_benchmark_is_refused():
    with pytest.raises(ConfigError, match=r"^meld is not written as 'mmau'\. Its formats: official\.$"):
        exported(TASKS["meld"], [], "mmau")
