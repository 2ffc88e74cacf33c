"""How sure a figure is: intervals and comparisons by resampling whole groups (speakers, dialogues), by a fixed seed."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .score.measure import Array, Measure

DRAWS = 1000
SEED = 0
LEVEL = 0.95


@dataclass(frozen=True)
class Paired:
    """The difference of two runs on their common rows, the second less the first."""

    difference: float
    low: float | None  # of the 95 % interval; None where there are fewer than two groups
    high: float | None
    p: float | None  # share of resamplings on the other side of no difference, doubled


def group_numbers(groups: Sequence[Hashable]) -> tuple[np.ndarray, int]:
    """Each row's group as a number, and how many there are; None stands for a group of its own."""
    known: dict[Hashable, int] = {}
    numbers = [
        known.setdefault((row,) if group is None else ("", group), len(known)) for row, group in enumerate(groups)
    ]
    return np.array(numbers, int), len(known)


def _by_group(counts: Array, numbers: np.ndarray, how_many: int) -> Array:
    sums = np.zeros((how_many, counts.shape[1]))
    np.add.at(sums, numbers, counts)
    return sums


def _resampled(sums: Array, draws: int, seed: int) -> Iterator[Array]:
    """Sums over as many groups as there are, drawn with replacement, `draws` times."""
    random, how_many = np.random.default_rng(seed), len(sums)
    for _ in range(draws):
        yield np.bincount(random.integers(how_many, size=how_many), minlength=how_many) @ sums


def intervals(
    measures: Sequence[Measure],
    rows: Sequence[int],
    groups: Sequence[Hashable],
    *,
    draws: int = DRAWS,
    seed: int = SEED,
) -> list[tuple[float, float] | None]:
    """The 95 % interval of each measure over `rows`, whose groups these are; None with fewer than two groups."""
    numbers, how_many = group_numbers(groups)
    if how_many < 2:
        return [None] * len(measures)
    chosen = [measure.counts[list(rows)] for measure in measures]
    sums = _by_group(np.concatenate(chosen, axis=1), numbers, how_many)
    drawn = np.stack(list(_resampled(sums, draws, seed)))
    found: list[tuple[float, float] | None] = []
    start = 0
    for measure, counts in zip(measures, chosen, strict=True):
        values = measure.value(drawn[:, start : start + counts.shape[1]])
        start += counts.shape[1]
        found.append(_quantiles(values))
    return found


def _quantiles(values: Array) -> tuple[float, float] | None:
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def paired(
    first: Measure, second: Measure, groups: Sequence[Hashable], *, draws: int = DRAWS, seed: int = SEED
) -> Paired:
    """`second` less `first`, of the same rows in the same order; both are resampled together."""
    width = first.counts.shape[1]
    both = np.concatenate([first.counts, second.counts], axis=1)
    whole = both.sum(0)
    difference = float(second.value(whole[width:]) - first.value(whole[:width]))
    numbers, how_many = group_numbers(groups)
    if how_many < 2:
        return Paired(difference, None, None, None)
    drawn = np.stack(list(_resampled(_by_group(both, numbers, how_many), draws, seed)))
    differences = second.value(drawn[:, width:]) - first.value(drawn[:, :width])
    quantiles = _quantiles(differences)
    if quantiles is None:
        return Paired(difference, None, None, None)
    differences = differences[np.isfinite(differences)]
    below = (np.count_nonzero(differences < 0) + np.count_nonzero(differences == 0) / 2) / len(differences)
    return Paired(difference, *quantiles, min(1.0, 2 * min(below, 1 - below) + 1 / len(differences)))


def mcnemar(gained: int, lost: int) -> float:
    """The exact two-sided p of `gained` rows turned right and `lost` ones turned wrong, were both equally likely."""
    flips, fewer = gained + lost, min(gained, lost)
    if flips == 0:
        return 1.0
    log_half = flips * math.log(2)
    terms = (
        math.lgamma(flips + 1) - math.lgamma(k + 1) - math.lgamma(flips - k + 1) - log_half for k in range(fewer + 1)
    )
    return min(1.0, 2 * math.fsum(map(math.exp, terms)))


def rows_needed(rows: int, half_width: float, wanted: float) -> int:
    """Rows for an interval of half width `wanted`, where `rows` gave `half_width`: it shrinks as their root."""
    return math.ceil(rows * (half_width / wanted) ** 2) if wanted > 0 else rows
