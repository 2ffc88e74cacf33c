"""predictions.jsonl: a run's answers, a line each."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..datasets.line_log import LineLog, json_line, parse_lines, replace_file
from .example import Prediction

_FIELDS = {field.name for field in dataclasses.fields(Prediction)}
Row = tuple[str, str]  # task and id


def prediction_key(
    task: str, row: str, *, audio: str, prompt: str | None, decoding: Mapping[str, Any], model: str
) -> str:
    """sha1 of what decides an answer: `audio` is the clip's hash, `model` the weights' fingerprint."""
    parts = json.dumps([task, row, audio, prompt, dict(decoding), model], sort_keys=True)
    return hashlib.sha1(parts.encode()).hexdigest()


def to_line(prediction: Prediction) -> bytes:
    """One line of JSON, with its end; the same bytes for the same prediction."""
    fields = {field.name: getattr(prediction, field.name) for field in dataclasses.fields(prediction)}
    return json_line({**fields, "columns": dict(prediction.columns)})


def from_line(line: bytes | str) -> Prediction:
    """Raises ValueError or TypeError for a line that is none of `to_line`'s."""
    data = json.loads(line)
    if not isinstance(data, dict):
        raise TypeError("it is no object")
    known = {name: value for name, value in data.items() if name in _FIELDS}
    return Prediction(**{**known, "choices": tuple(known.get("choices", ()))})


def read_predictions(path: Path) -> list[Prediction]:
    """The predictions of a file, in its order; of several of one row the last counts, at the first one's place.

    A last line that a kill has torn is left out. Raises EvaluationError for any other line that cannot be read.
    """
    return list(_latest(path.read_bytes(), path).values())


def _latest(data: bytes, path: Path) -> dict[Row, Prediction]:
    return {(p.task, p.id): p for p in parse_lines(data, path, from_line, "prediction")}


class PredictionLog:
    """The predictions of a folder: those that are there, and new ones behind them.

    Attributes: `latest`, the last prediction of each row, by task and id.
    """

    def __init__(self, path: Path) -> None:
        """Raises EvaluationError where another run writes into the file, it cannot be written, or a line be read."""
        self.path = path
        self._log = LineLog(path)
        try:
            self.latest: dict[Row, Prediction] = _latest(self._log.lines, path)
        except BaseException:
            self._log.close()
            raise

    def add(self, prediction: Prediction) -> None:
        """Append a prediction. Raises EvaluationError where it cannot be written; the file then ends as before."""
        self._log.add(to_line(prediction))
        self.latest[prediction.task, prediction.id] = prediction

    def sort(self, order: Mapping[Row, Any]) -> None:
        """Rewrite the file with one line a row, by `order`; rows that it does not name stay, behind the others.

        Afterwards a run in one go, a resumed one and merged shards have the same bytes. Raises EvaluationError.
        """
        known = sorted((row for row in self.latest if row in order), key=lambda row: order[row])
        others = [row for row in self.latest if row not in order]
        data = b"".join(to_line(self.latest[row]) for row in [*known, *others])
        replace_file(self.path, data, "its answers are kept")

    def close(self) -> None:
        self._log.close()

    def __enter__(self) -> PredictionLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
