"""Files of answers that others wrote: the official script's list, other suites' JSON and JSON lines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..datasets.line_log import replace_file
from ..errors import ConfigError, EvaluationError
from .example import Prediction
from .folder import MANIFEST, PREDICTIONS, Identity, enter
from .layouts.official import group_of
from .predictions import prediction_key, to_line
from .score.scorers import SCORERS
from .task import Task

# Where others write the answer, the reference and the row's name, in the order in which they are looked for.
ANSWERS = (
    "response", "pred_text", "model_output", "model_prediction", "answer_prediction", "prediction", "predict", "pred",
    "hypothesis", "output_text",
)  # fmt: skip
REFERENCES = ("gt", "reference", "answer_gt", "answer", "ground_truth", "text", "target", "label", "output")
IDS = ("id", "idx", "uniq_id", "audio_id", "audio_path", "audio_filepath", "audio", "path", "index", "key")
CLIPS = ("audio_path", "audio_filepath", "audio", "audio_id", "path", "wav")
SOURCES = ("source", "subset", "dataset", "task_name")
# Whose rows' `source` or `dataset` names something else than their part of the benchmark.
ONE_PART = ("mmau", "mmar", "mmsu", "voicebench", "openaudiobench")


def import_answers(path: Path, task: Task, folder: Path) -> Path:
    """Make a run's folder of a file of answers to `task`, to be scored as any other. Returns the folder.

    Raises EvaluationError for a file that holds no answers, or another task's.
    """
    rows = read_rows(path)
    predictions = [_prediction(task, row, number) for number, row in enumerate(rows)]
    _check_task(path, task, predictions)
    fingerprint = f"file:{hashlib.sha1(path.read_bytes()).hexdigest()[:12]}"
    identity = Identity(path.stem, fingerprint, {}, {task.id: {"language": task.language}})
    enter(folder, identity)
    kept = f"{path} is as it was"
    replace_file(folder / PREDICTIONS, b"".join(map(to_line, predictions)), kept)
    replace_file(folder / MANIFEST, b"", kept)
    return folder


def read_rows(path: Path) -> list[Mapping[str, Any]]:
    """The objects of a JSON list, of a list inside an object, or of JSON lines. Raises EvaluationError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{path} cannot be read: {error}.") from error
    try:
        data: Any = json.loads(text)
    except ValueError:
        data = _lines(path, text)
    if isinstance(data, Mapping) and _first(data, ANSWERS) is not None:  # one line that is a whole file
        data = [data]
    if isinstance(data, Mapping):  # {"results": [...]}
        lists = [
            value for value in data.values() if isinstance(value, list) and value and isinstance(value[0], Mapping)
        ]
        data = lists[0] if lists else [data]
    if not isinstance(data, list) or not data or not all(isinstance(row, Mapping) for row in data):
        raise EvaluationError(f"{path} holds no rows; expected a JSON list of objects, or an object a line.")
    return data


def _lines(path: Path, text: str) -> list[Any]:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise EvaluationError(f"{path}, line {number}, is no JSON ({error}).") from error
    return rows


def _prediction(task: Task, row: Mapping[str, Any], number: int) -> Prediction:
    answer = _first(row, ANSWERS)
    if answer is None and "text" in row and "task" in row and "key" in row:  # a line of our own predictions.jsonl
        answer = row["text"]
    if answer is None:
        raise EvaluationError(
            f"Row {number + 1} has the columns {', '.join(map(str, row))}; expected an answer in one of "
            f"{', '.join(ANSWERS)}."
        )
    text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
    reference, audio = _first(row, REFERENCES), str(_first(row, CLIPS) or "")
    own = row.get("choices") or [
        row[f"choice_{letter}"] for letter in "abcd" if row.get(f"choice_{letter}") is not None
    ]
    choices = tuple(str(choice) for choice in own) if isinstance(own, Sequence) and not isinstance(own, str) else ()
    id_ = _first(row, IDS)
    name = str(number if id_ is None else id_)
    prompt = row.get("prompt") or row.get("question")
    return Prediction(
        key=prediction_key(task.id, name, audio=audio, prompt=str(prompt), decoding={}, model="file"),
        task=str(row.get("task")) if "key" in row and "task" in row else task.id,
        id=f"{name}#{number}" if id_ is None else name,
        source=_source(task, row),
        audio=audio, text=text, reference=None if reference is None else str(reference),
        prompt=None if prompt is None else str(prompt), choices=choices,
        group=str(row.get("group") or (task.group and row.get(task.group)) or group_of(task, audio)),
        columns=_other_columns(row),
    )  # fmt: skip


def _other_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in row.items() if key not in ("key", "columns")}
    return own | dict(row.get("columns") or {})


def _source(task: Task, row: Mapping[str, Any]) -> str:
    """The part of the task that a row is of, by its benchmark's own columns."""
    only = task.sources[0][0] if task.sources else ""
    family = task.id.partition("-")[0]
    if task.id == "airbench-foundation" and "task_name" in row:
        return f"{row['task_name']}_{row.get('dataset_name', '')}"
    if family in ONE_PART and ("key" not in row or "task" not in row):  # ours have both
        return only
    return str(_first(row, SOURCES) or only)


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _check_task(path: Path, task: Task, predictions: Sequence[Prediction]) -> None:
    known = {name for name, _ in task.sources}
    found = {prediction.source for prediction in predictions}
    if known and len(known) < 12 and found and not any(_alike(a, b) for a in found for b in known):
        raise EvaluationError(
            f"{path} has answers to {', '.join(sorted(found)[:3])}, and {task.id} is of "
            f"{', '.join(sorted(known)[:3])}; name the file's own task with --task."
        )
    scorer = SCORERS.get(task.scorer)
    if scorer is None:
        raise ConfigError(f"{task.id} is scored while it is run, and not from a file of answers.")
    if all(scorer.skip(prediction) is not None for prediction in predictions):
        raise ConfigError(
            f"{path} has no right answers ({scorer.skip(predictions[0])}); expected them in one of "
            f"{', '.join(REFERENCES)}, to score {task.id} by."
        )


def _alike(one: str, other: str) -> bool:
    first, second = one.lower().replace("-", "_"), other.lower().replace("-", "_")
    return first in second or second in first
