"""A figure as a function of sums over rows, so that it can be taken of any part, and of any resampling, of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..example import Prediction
from ..task import Task
from .judgement import Judgement

Array = npt.NDArray[np.float64]


def share(sums: Array) -> Array:
    """The first sum by the last: [..., k] to [...]; NaN where the last is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(sums[..., 0] / sums[..., -1])


@dataclass(frozen=True)
class Measure:
    """One figure of a scorer."""

    name: str  # "wer", "accuracy_strict"
    counts: Array  # [rows, k], what each row adds
    value: Callable[[Array], Array] = share  # of summed counts: [..., k] to [...]
    lower_is_better: bool = False
    columns: tuple[str, ...] = ()  # names of the first columns of `counts`, where their sums are worth printing


def accuracy(name: str, right: Sequence[float], counted: Sequence[bool] | None = None) -> Measure:
    """The mean of `right`, over the rows that are `counted`."""
    weights = np.ones(len(right)) if counted is None else np.asarray(counted, float)
    return Measure(name, np.stack([np.asarray(right, float) * weights, weights], axis=-1))


def _nothing(rows: Sequence[int]) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Scores:
    """What a scorer finds in a task's answers; the rows are in the order they were given in."""

    measures: tuple[Measure, ...]  # the published one first
    details: Callable[[Sequence[int]], dict[str, Any]] = (
        _nothing  # of these rows: a confusion matrix, what was not parsed
    )
    by: Mapping[str, Sequence[str]] = field(default_factory=dict)  # "modality": each row's; "" belongs to none
    read_as: Sequence[Any] = ()  # how each answer was read, for people
    signature: Mapping[str, str] = field(
        default_factory=dict
    )  # what else decided the figures: a normaliser, a tokenizer


Measuring = Callable[[Task, Sequence[Prediction], Mapping[str, Sequence[Judgement]]], Scores]
