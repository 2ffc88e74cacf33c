"""A task's answers to the body of scores.json: no times, dates or paths, so that equal answers give equal bytes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import __version__
from ...errors import EvaluationError
from ..example import Prediction
from ..stats import intervals, rows_needed
from ..task import Golden, Task
from .health import CUT, health
from .judgement import Judgement
from .measure import Measure, Scores
from .scorers import SCORERS, Scorer

DIGITS = 6  # behind the point


@dataclass(frozen=True)
class Scored:
    """A task's answers with what its scorer makes of them."""

    rows: list[Prediction]  # that could be scored, sorted by source and id
    skipped: list[tuple[Prediction, str]]  # the others, and why
    scores: Scores


def score(
    task: Task,
    predictions: Iterable[Prediction],
    judgements: Mapping[str, Sequence[Judgement]] | None = None,
    *,
    about: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The figures of a task's answers: of all of them, by source, and by what the task's authors break them down by.

    `judgements` are of each judge. `about` says for the signature what decided the answers: checkpoint, dtype, list.
    The order of the predictions does not matter. Raises EvaluationError for another task's, and for a task that is not
    scored from its answers; ConfigError where a package is missing.
    """
    scored = measure(task, predictions, judgements)
    rows, everything = scored.rows, [*scored.rows, *(row for row, _ in scored.skipped)]
    sources = dict.fromkeys([*(name for name, _ in task.sources), *sorted({row.source for row in everything})])
    present = [name for name in sources if any(row.source == name for row in everything)]
    expected = dict(task.sources)
    pooled = _part(scored, range(len(rows)), None, sum(expected.values()) or None)
    parts = {
        name: {**pooled, "expected": expected.get(name)}
        if len(present) == 1
        else _part(scored, [i for i, row in enumerate(rows) if row.source == name], name, expected.get(name))
        for name in present
    }
    by = {
        column: {
            value: _part(scored, [i for i, one in enumerate(values) if one == value])
            for value in sorted(set(values) - {""})
        }
        for column, values in scored.scores.by.items()
    }
    return {
        "task": task.id,
        "title": task.title,
        "checkpoint": task.checkpoint,
        "primary": scored.scores.measures[0].name,
        "signature": _signature(task, scored, everything, about or {}),
        **pooled,
        "sources": parts,
        "by": by,
        "goldens": _goldens(task.goldens, pooled, parts, by),
        "health": health(everything, task.language, transcribes=_scorer(task).transcribes),
    }


def measure(
    task: Task, predictions: Iterable[Prediction], judgements: Mapping[str, Sequence[Judgement]] | None = None
) -> Scored:
    """The answers that can be scored, each with what it adds to every figure. Raises as `score`."""
    scorer = _scorer(task)
    rows, skipped = [], []
    for prediction in sorted(predictions, key=lambda one: (one.source, one.id)):
        if prediction.task != task.id:
            raise EvaluationError(
                f"Row {prediction.id} is an answer to {prediction.task}, not to {task.id}; name its own task."
            )
        reason = "no answer" if prediction.error is not None else scorer.skip(prediction)
        if reason is None:
            rows.append(prediction)
        else:
            skipped.append((prediction, reason))
    ours = {
        judge: [one for one in sorted(said, key=lambda one: (one.id, one.swapped, one.sample)) if one.task == task.id]
        for judge, said in sorted((judgements or {}).items())
    }
    return Scored(rows, skipped, scorer.measure(task, rows, {judge: said for judge, said in ours.items() if said}))


def row_values(scored: Scored) -> list[float | None]:
    """The first figure of each row by itself, in the order of `scored.rows`; None where it has none."""
    first = scored.scores.measures[0]
    return [_rounded(float(value)) for value in np.atleast_1d(first.value(first.counts))] if len(scored.rows) else []


def _scorer(task: Task) -> Scorer:
    if task.scorer not in SCORERS:
        raise EvaluationError(f"{task.id} is scored while it is run, and not from a file of its answers.")
    return SCORERS[task.scorer]


def _part(
    scored: Scored, rows: Sequence[int], source: str | None = None, expected: int | None = None
) -> dict[str, Any]:
    """What is known of these rows; where they are a source's, or all, with those of it that were skipped."""
    whole = source is None and len(rows) == len(scored.rows)
    skipped = [reason for row, reason in scored.skipped if whole or row.source == source]
    groups = [_group(scored.rows[row]) for row in rows]
    measures = scored.scores.measures
    bounds = intervals(measures, rows, groups)
    return {
        "n": len(rows) + len(skipped),
        "expected": expected,
        "scored": len(rows),
        "skipped": dict(sorted(Counter(skipped).items())),
        "groups": len({group if group is not None else (row,) for row, group in zip(rows, groups, strict=True)}),
        "metrics": {one.name: _metric(one, rows, bound) for one, bound in zip(measures, bounds, strict=True)},
        **scored.scores.details(rows),
    }


def _group(row: Prediction) -> tuple[str, str] | None:
    return (row.source, row.group) if row.group else None


def _metric(one: Measure, rows: Sequence[int], bound: tuple[float, float] | None) -> dict[str, Any]:
    sums = one.counts[list(rows)].sum(0)
    low, high = bound if bound else (None, None)
    counted = {name: int(total) for name, total in zip(one.columns, sums, strict=False)}
    return {
        "value": _rounded(float(one.value(sums))),
        "low": _rounded(low),
        "high": _rounded(high),
        "better": "lower" if one.lower_is_better else "higher",
        **counted,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, DIGITS) + 0.0  # no -0.0


def _goldens(
    goldens: Sequence[Golden], pooled: Mapping[str, Any], parts: Mapping[str, Any], by: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Each published figure beside ours; beside each of several sources where it does not say of which it is."""
    named = {name: part for values in by.values() for name, part in values.items()} | dict(parts)
    found = []
    for golden in goldens:
        if golden.source:
            places = [(golden.source, named[golden.source])] if golden.source in named else []
        else:
            places = [("", pooled), *(parts.items() if len(parts) > 1 else ())]
        for name, part in places:
            for metric, figure in part["metrics"].items():
                if metric.partition("@")[0] == golden.metric and figure["value"] is not None:
                    found.append(_beside(golden, name, metric, part))
    return found


def _beside(golden: Golden, source: str, metric: str, part: Mapping[str, Any]) -> dict[str, Any]:
    """`distance` is in units of the noise band, the published one or half our own interval, whichever is wider: within
    1, chance alone explains the difference. `rows_needed`: how many rows would make ours as narrow as theirs."""
    figure = part["metrics"][metric]
    own = None if figure["low"] is None else (figure["high"] - figure["low"]) / 2
    noise, difference = max(golden.noise or 0.0, own or 0.0), figure["value"] - golden.value
    hint = {}
    if own and golden.noise and own > golden.noise:
        hint = {"rows_needed": rows_needed(part["scored"], own, golden.noise)}
    return {
        "by": golden.by,
        "source": source,
        "metric": metric,
        "golden": golden.value,
        "value": figure["value"],
        "difference": _rounded(difference),
        "noise": _rounded(noise) or None,
        "distance": _rounded(difference / noise) if noise else None,
        **hint,
    }


def _signature(task: Task, scored: Scored, rows: Sequence[Prediction], about: Mapping[str, str]) -> str:
    """Everything that decides the figures, in sacrebleu's manner."""
    sampling = task.decoding
    cut = sum(row.heard > 0 and row.seconds - row.heard > CUT for row in rows)
    parts = {
        "task": task.id,
        "proto": "official",
        "n": str(len(scored.rows)),
        "score": task.scorer,
        **scored.scores.signature,
        "decode": f"greedy-{sampling.max_tokens}" if sampling.temperature == 0 else f"sampling-{sampling.max_tokens}",
        **({"long": f"cut-{cut}"} if cut else {}),
        **about,
        "v": __version__,
    }
    return "|".join(f"{name}:{value}" for name, value in parts.items())
