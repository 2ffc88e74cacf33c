"""Two runs on their common rows: what changed, how sure that is, and which rows flipped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import EvaluationError
from .example import Prediction
from .score.judgement import Judgement
from .score.measure import Measure
from .score.score import Scored, measure, row_values
from .stats import mcnemar, paired, rows_needed
from .task import Task

Judged = Mapping[str, Sequence[Judgement]]
SHOWN = 20  # flipped rows that are listed, the largest changes first


def compare(
    task: Task,
    first: Iterable[Prediction],
    second: Iterable[Prediction],
    judgements: tuple[Judged | None, Judged | None] = (None, None),
) -> dict[str, Any]:
    """`second` against `first`. Rows that only one of them has are counted and left out.

    Raises EvaluationError where no row is in both, or one row has two references.
    """
    firsts, seconds = {one.id: one for one in first}, {one.id: one for one in second}
    common = sorted(firsts.keys() & seconds.keys())
    if not common:
        raise EvaluationError(f"The two runs of {task.id} have no row in common; expected the same data in both.")
    for row in common:
        if firsts[row].reference != seconds[row].reference:
            raise EvaluationError(
                f"Row {row} of {task.id} has the reference {firsts[row].reference!r} in the first run and "
                f"{seconds[row].reference!r} in the second; expected the same data in both."
            )
    one = measure(task, (firsts[row] for row in common if seconds[row].error is None), judgements[0])
    other = measure(task, (seconds[row] for row in common if firsts[row].error is None), judgements[1])
    if [row.id for row in one.rows] != [row.id for row in other.rows]:
        raise EvaluationError(
            f"The two runs of {task.id} differ in which rows can be scored ({len(one.rows)} and {len(other.rows)}); "
            "expected the same data in both."
        )
    groups = [(row.source, row.group) if row.group else None for row in one.rows]
    named = {found.name: found for found in other.scores.measures}
    pairs = [(found, named[found.name]) for found in one.scores.measures if found.name in named]
    return {
        "task": task.id,
        "common": len(one.rows),
        "only_first": len(firsts) - len(common),
        "only_second": len(seconds) - len(common),
        "failed": len(common) - len(one.rows),
        "metrics": {before.name: _difference(before, after, groups) for before, after in pairs},
        **_flips(one, other),
    }


def _difference(before: Measure, after: Measure, groups: Sequence[tuple[str, str] | None]) -> dict[str, Any]:
    change = paired(before, after, groups)
    figures: dict[str, Any] = {
        "first": _round(float(before.value(before.counts.sum(0)))),
        "second": _round(float(after.value(after.counts.sum(0)))),
        "difference": _round(change.difference),
        "low": _round(change.low),
        "high": _round(change.high),
        "p": _round(change.p),
        "better": "lower" if before.lower_is_better else "higher",
    }
    if _is_right_or_wrong(before) and _is_right_or_wrong(after):
        was, now = before.counts[:, 0] > 0, after.counts[:, 0] > 0
        gained, lost = int(np.sum(now & ~was)), int(np.sum(was & ~now))
        figures["mcnemar"] = {"gained": gained, "lost": lost, "p": _round(mcnemar(gained, lost))}
    if change.low is not None and change.high is not None and change.low <= 0 <= change.high and change.difference:
        # How many rows would tell a difference of this size from none, were it real.
        figures["rows_to_tell"] = rows_needed(len(groups), (change.high - change.low) / 2, abs(change.difference))
    return figures


def _is_right_or_wrong(found: Measure) -> bool:
    return (
        found.counts.shape[1] == 2
        and bool(np.isin(found.counts, (0, 1)).all())
        and bool((found.counts[:, 1] == 1).all())
    )


def _flips(one: Scored, other: Scored) -> dict[str, Any]:
    """Rows whose first figure changed, and those whose text did."""
    sign = -1 if one.scores.measures[0].lower_is_better else 1
    changes = [
        (sign * ((after or 0) - (before or 0)), row, later)
        for row, later, before, after in zip(one.rows, other.rows, row_values(one), row_values(other), strict=True)
    ]
    changed = sorted(
        (one for one in changes if one[0]), key=lambda found: (-abs(found[0]), found[1].source, found[1].id)
    )
    return {
        "better": sum(change > 0 for change, _, _ in changed),
        "worse": sum(change < 0 for change, _, _ in changed),
        "other_text": sum(row.text != later.text for _, row, later in changes),
        "flips": [
            {
                "id": row.id,
                "source": row.source,
                "change": _round(change),
                "reference": row.reference,
                "first": row.text,
                "second": later.text,
            }
            for change, row, later in changed[:SHOWN]
        ],
    }


def _round(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 6) + 0.0  # no -0.0
