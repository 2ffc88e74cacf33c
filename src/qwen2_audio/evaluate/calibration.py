"""Whether probabilities mean what they say: a reliability table, and the expected calibration error.

ECE after https://arxiv.org/abs/1706.04599, section 2: decisions in bins by the probability of their choice; in each
bin the mean of those probabilities against the share that is right; the mean gap, weighted by the bins' sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BINS = 10


@dataclass(frozen=True)
class Bin:
    """Decisions whose probability lies between `low` and `high`."""

    low: float
    high: float
    count: int
    mean: float  # of the probabilities
    right: float  # share of right choices


@dataclass(frozen=True)
class Calibration:
    """Of some decisions: the bins that hold any, and figures over all."""

    bins: tuple[Bin, ...]
    count: int
    accuracy: float
    ece: float
    label_mass: float  # the mean

    def lines(self) -> list[str]:
        """As a table in Markdown."""
        rows = [f"| {b.low:.1f} to {b.high:.1f} | {b.count} | {b.mean:.3f} | {b.right:.3f} |" for b in self.bins]
        return [
            "| probability of the choice | decisions | mean | right |",
            "|---|---|---|---|",
            *rows,
            "",
            f"{self.count} decisions, {self.accuracy:.1%} right, ECE {self.ece:.3f}, "
            f"mean label mass {self.label_mass:.3f}",
        ]


def calibration(probabilities: Sequence[float], right: Sequence[bool], label_masses: Sequence[float]) -> Calibration:
    """Of decisions: the probability of each one's choice, whether it was right, its label mass. At least one."""
    count = len(probabilities)
    bins, ece = [], 0.0
    for index in range(BINS):
        members = [i for i, p in enumerate(probabilities) if min(int(p * BINS), BINS - 1) == index]
        if not members:
            continue
        mean = sum(probabilities[i] for i in members) / len(members)
        share = sum(right[i] for i in members) / len(members)
        ece += len(members) / count * abs(mean - share)
        bins.append(Bin(index / BINS, (index + 1) / BINS, len(members), mean, share))
    return Calibration(tuple(bins), count, sum(right) / count, ece, sum(label_masses) / count)
