"""Answers in each benchmark's own format, for its authors' scripts and for handing in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..datasets.line_log import replace_file
from ..errors import ConfigError, EvaluationError, did_you_mean
from .example import Prediction
from .task import Task

Row = dict[str, Any]
LETTERS = "abcdefgh"


def _official(prediction: Prediction) -> Row:
    return {
        "gt": prediction.reference,
        "response": prediction.text,
        "source": prediction.source,
        "audio_path": prediction.audio,
    }


def _airbench_chat_official(prediction: Prediction) -> Row:
    return {"idx": prediction.id, "response": prediction.text, "audio_path": prediction.audio}


def _own_columns(prediction: Prediction, *names: str) -> Row:
    return {name: prediction.columns[name] for name in names if name in prediction.columns}


def _mmau(prediction: Prediction) -> Row:
    """Its README names the answer's key `model_prediction`, its script reads `model_output`: both are there."""
    known = ("question", "dataset", "task", "split", "category", "sub-category", "difficulty")
    return {
        "id": prediction.id,
        "audio_id": prediction.columns.get("audio_id", prediction.audio),
        **_own_columns(prediction, *known),
        "choices": list(prediction.choices),
        "answer": prediction.reference,
        "model_output": prediction.text,
        "model_prediction": prediction.text,
    }


def _mmar(prediction: Prediction) -> Row:
    known = ("question", "modality", "category", "sub-category", "language", "source", "url", "timestamp")
    return {
        "id": prediction.id,
        "audio_path": prediction.columns.get("audio_path", prediction.audio),
        **_own_columns(prediction, *known),
        "choices": list(prediction.choices),
        "answer": prediction.reference,
        "answer_prediction": prediction.text,
    }


def _airbench(prediction: Prediction) -> Row:
    known = ("path", "question", "meta_info", "task_name", "dataset_name")
    choices = {f"choice_{LETTERS[number]}": choice for number, choice in enumerate(prediction.choices)}
    return {
        **_own_columns(prediction, *known),
        **choices,
        "answer_gt": prediction.reference,
        "uniq_id": prediction.columns.get("uniq_id", prediction.id),
        "response": prediction.text,
    }


def _mmsu(prediction: Prediction) -> Row:
    known = ("task_name", "question", "category", "sub-category", "sub-sub-category", "linguistics_sub_discipline")
    choices = {f"choice_{LETTERS[number]}": choice for number, choice in enumerate(prediction.choices)}
    about = {"id": prediction.id, **_own_columns(prediction, *known), **choices}
    return {**about, "answer_gt": prediction.reference, "response": prediction.text}


def _voicebench(prediction: Prediction) -> Row:
    known = ("prompt", "key", "instruction_id_list", "kwargs", "id")
    reference = {} if prediction.reference is None else {"reference": prediction.reference}
    return {**_own_columns(prediction, *known), **reference, "response": prediction.text}


def _open_asr(prediction: Prediction) -> Row:
    return {
        "audio_filepath": prediction.audio,
        "duration": prediction.seconds,
        "text": prediction.reference,
        "pred_text": prediction.text,
    }


# Name: how a row is written, and whether the file is JSON lines or one list.
FORMATS: Mapping[str, tuple[Any, bool]] = {
    "official": (_official, False),
    "official-chat": (_airbench_chat_official, False),
    "mmau": (_mmau, False),
    "mmar": (_mmar, False),
    "airbench": (_airbench, True),
    "mmsu": (_mmsu, True),
    "voicebench": (_voicebench, True),
    "open-asr": (_open_asr, True),
}


def formats_of(task: Task) -> tuple[str, ...]:
    """The formats that the task's own scripts read; the first is its benchmark's."""
    if task.id == "airbench-chat":
        return "airbench", "official-chat"
    family = task.id.partition("-")[0]
    if family in FORMATS:
        return (family,)
    return ("official", "open-asr") if task.scorer in ("wer", "cer") else ("official",)


def exported(task: Task, predictions: Iterable[Prediction], format: str | None = None) -> Sequence[Row]:
    """The rows of a file in one of the task's formats. Rows without an answer are left out.

    Raises ConfigError for a format that is not the task's.
    """
    known = formats_of(task)
    name = format or known[0]
    if name not in known:
        raise ConfigError(
            f"{task.id} is not written as {name!r}.{did_you_mean(name, known)} Its formats: {', '.join(known)}."
        )
    return [FORMATS[name][0](prediction) for prediction in predictions if prediction.error is None]


def export(task: Task, predictions: Iterable[Prediction], folder: Path, format: str | None = None) -> Path:
    """Write the answers as the task's benchmark reads them. Returns the file, `TASK.FORMAT.json` or `.jsonl`.

    Raises ConfigError as `exported`, EvaluationError where the file cannot be written.
    """
    name = format or formats_of(task)[0]
    rows = exported(task, predictions, name)
    try:
        if FORMATS[name][1]:
            text = "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
        else:
            text = json.dumps(rows, ensure_ascii=False, indent=1, default=str) + "\n"
    except (TypeError, ValueError) as error:
        raise EvaluationError(f"The answers to {task.id} cannot be written as JSON: {error}.") from error
    path = folder / f"{task.id}.{name}.{'jsonl' if FORMATS[name][1] else 'json'}"
    replace_file(path, text.encode("utf-8", "backslashreplace"), "the answers themselves are kept")
    return path
