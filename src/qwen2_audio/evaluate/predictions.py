"""predictions.jsonl: a run's answers, a line each, so that a kill at any moment costs at most the line it tears."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import EvaluationError
from .example import Prediction

SYNC_EVERY = 32  # lines between two fsyncs: a killed process loses none of them, a machine without power these
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
        raise TypeError("no object")
    known = {name: value for name, value in data.items() if name in _FIELDS}
    return Prediction(**{**known, "choices": tuple(known.get("choices", ()))})


def json_line(value: Mapping[str, Any]) -> bytes:
    """`value` as one line of UTF-8; what JSON has no word for becomes text, and bytes their number."""
    try:
        return (json.dumps(value, ensure_ascii=False, default=_plain) + "\n").encode()
    except UnicodeEncodeError:  # a path that is no UTF-8
        return (json.dumps(value, default=_plain) + "\n").encode()


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy's
        return value.tolist()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"{len(value)} bytes"
    return dict(value) if isinstance(value, Mapping) else str(value)


def read_predictions(path: Path) -> list[Prediction]:
    """The predictions of a file, in its order; of several of one row the last counts, at the first one's place.

    A last line that a kill has torn is left out. Raises EvaluationError for any other line that cannot be read.
    """
    latest: dict[Row, Prediction] = {}
    for prediction in _parse(path.read_bytes(), path):
        latest[prediction.task, prediction.id] = prediction
    return list(latest.values())


def _parse(data: bytes, path: Path) -> Iterable[Prediction]:
    lines = data.split(b"\n")
    for number, line in enumerate(lines[:-1], 1):  # behind the last line's end there is nothing, or a torn line
        if not line.strip():
            continue
        try:
            yield from_line(line)
        except (ValueError, TypeError) as error:
            raise EvaluationError(
                f"{path}, line {number}, is no prediction ({error}); take the line out, and the run asks its row again."
            ) from error


class PredictionLog:
    """The predictions of a folder: those that are there, and new ones behind them.

    Attributes: `latest`, the last prediction of each row, by task and id.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file, or makes it, and takes off a torn last line. Raises EvaluationError where another run writes
        into it, where it cannot be written, or a line cannot be read."""
        self.path = path
        try:
            self._file = path.open("a+b", buffering=0)
        except OSError as error:
            raise EvaluationError(f"{path} cannot be written: {error.strerror}; name another folder.") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise EvaluationError(
                f"Another run is writing into {path}; wait for it, or name another folder with --out."
            ) from error
        self._file.seek(0)
        data = self._file.read()
        self._size = data.rfind(b"\n") + 1  # bytes of whole lines
        self._unsynced = 0
        try:
            self.latest: dict[Row, Prediction] = {(p.task, p.id): p for p in _parse(data, path)}
            if self._size < len(data):
                self._file.truncate(self._size)
        except BaseException:
            self._file.close()
            raise

    def add(self, prediction: Prediction) -> None:
        """Append a prediction. Raises EvaluationError where it cannot be written; the file then ends as before."""
        line = to_line(prediction)
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:]) or 0
            self._unsynced += 1
            if self._unsynced >= SYNC_EVERY:
                self._sync()
        except OSError as error:
            self._file.truncate(self._size)
            raise cannot_write(self.path, error, f"its {len(self.latest)} answers are kept") from error
        self._size += len(line)
        self.latest[prediction.task, prediction.id] = prediction

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._unsynced = 0

    def sort(self, order: Mapping[Row, Any]) -> None:
        """Rewrite the file with one line a row, by `order`; rows that it does not name stay, behind the others.

        Afterwards a run in one go, a resumed one and merged shards have the same bytes. Raises EvaluationError.
        """
        known = [prediction for row, prediction in self.latest.items() if row in order]
        others = [prediction for row, prediction in self.latest.items() if row not in order]
        known.sort(key=lambda prediction: order[prediction.task, prediction.id])
        replace_file(self.path, b"".join(map(to_line, [*known, *others])), "its answers are kept")

    def close(self) -> None:
        if not self._file.closed:
            try:
                self._sync()
            except OSError:  # the lines are with the system, which will say it to the next writer
                pass
            finally:
                self._file.close()

    def __enter__(self) -> PredictionLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def replace_file(path: Path, data: bytes, kept: str) -> None:
    """Write a file whole or not at all. Raises EvaluationError, which says what is `kept`, where there is no room."""
    new = path.with_name(path.name + ".new")
    try:
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise cannot_write(path, error, kept) from error


def cannot_write(path: Path, error: OSError, kept: str) -> EvaluationError:
    """The error of a full disk, in one sentence."""
    return EvaluationError(
        f"{path} cannot be written: {error.strerror}; {kept}. Make room, and run the same command again."
    )
