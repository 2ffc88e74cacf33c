"""A row of the output: every column of the corpus, and those of the answer or of the error behind them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..datasets.row import Row
from .runner import Outcome

MODEL = {"model": "text"}  # beside an operation's own columns: the fingerprint of the weights
ERROR = {"row": "whole", "error": "text", "kind": "text"}  # row: its number in the corpus, from 0


def record_of(row: Row, outcome: Outcome, added: Iterable[str]) -> dict[str, Any]:
    """A row with what became of it. A column of the corpus that is called as one of ours is kept as `input_` and its
    name; `added` are the names of ours."""
    taken = {"id", *added}
    record: dict[str, Any] = {"id": row.id}
    for name, value in row.columns.items():
        if name == "id" and str(value) == row.id:
            record["id"] = value
            continue
        while name in taken:
            name = f"input_{name}"
        taken.add(name)
        record[name] = value
    if "audio" not in record and row.sound is not None and "audio" not in taken:
        record["audio"] = row.sound.name
    if outcome.result is None:
        return record | {"row": outcome.number, "error": outcome.error, "kind": outcome.kind}
    return record | dict(outcome.result)


def result_of(record: Mapping[str, Any], added: Iterable[str]) -> dict[str, Any]:
    """Of a row of the output the columns that the answer added."""
    return {name: record[name] for name in added if name in record}
