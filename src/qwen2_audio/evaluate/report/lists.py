"""The registry as people read it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from ..task import Golden, Task
from .figures import shown, unit

KINDS = {"base": "base", "instruct": "Instruct", "any": "any"}


def short_lines(tasks: Sequence[Task]) -> list[str]:
    """A line a task: id, kind of checkpoint, rows, published figures."""
    rows = [("task", "checkpoint", "rows", "published")]
    rows += [(task.id, KINDS[task.checkpoint], _rows(task), "; ".join(_goldens(task)[:3])) for task in tasks]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip() for row in rows]


def long_lines(task: Task) -> Iterator[str]:
    """All that the registry states of a task."""
    yield f"{task.id}: {task.title}"
    yield f"  checkpoint  {KINDS[task.checkpoint]}"
    for name, rows in task.sources:
        yield f"  rows        {rows} of {name}"
    yield f"  prompt      {task.prompt or 'the clip alone'}"
    yield f"  scored by   {task.scorer}"
    yield f"  read from   {', '.join(task.layouts) or 'nothing: it is rendered'}"
    for line in _goldens(task):
        yield f"  published   {line}"
    yield f"  data        {task.where}{f' Licence: {task.licence}.' if task.licence else ''}"


def as_object(task: Task) -> dict[str, Any]:
    """For --json."""
    found = asdict(task)
    return {
        **found,
        "decoding": {name: value for name, value in found["decoding"].items() if value not in (None, {}, ())},
    }


def _rows(task: Task) -> str:
    return str(sum(rows for _, rows in task.sources)) if task.sources else ""


def _goldens(task: Task) -> list[str]:
    """ "wer 1.6 % (paper), 1.7 % (model card)": the figures of one measure and part together."""
    parts: dict[tuple[str, str], list[Golden]] = {}
    for golden in task.goldens:
        parts.setdefault((golden.metric, golden.source), []).append(golden)
    return [
        f"{metric}{f' {source}' if source else ''} "
        + ", ".join(f"{shown(metric, golden.value)}{unit(metric)} ({golden.by})" for golden in goldens)
        for (metric, source), goldens in parts.items()
    ]
