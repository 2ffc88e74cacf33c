"""Short forms of a published figure, written as its authors print it."""

from __future__ import annotations

from ..task import Golden


def rate(percent: float, metric: str, by: str, source: str = "", noise: float | None = None) -> Golden:
    """A rate printed in percent. Rates are fractions everywhere in here: 1.6 becomes 0.016."""
    return Golden(round(percent / 100, 6), metric, by, source, None if noise is None else round(noise / 100, 6))


def rates(metric: str, noise: float | None = None, *, source: str = "", **by: float) -> tuple[Golden, ...]:
    """The same rate by several: `rates("wer", 0.16, paper=1.6, card=1.7)`."""
    return tuple(rate(percent, metric, NAMES[name], source, noise) for name, percent in by.items())


def figures(metric: str, noise: float | None = None, *, source: str = "", **by: float) -> tuple[Golden, ...]:
    """The same for figures that are no percentages: BLEU, a judge's marks."""
    return tuple(Golden(value, metric, NAMES[name], source, noise) for name, value in by.items())


def by_source(metric: str, by: str, noise: float | None = None, **percents: float) -> tuple[Golden, ...]:
    """One party's rates in percent for several parts: `by_source("accuracy", "README", sound=33.3, music=24.3)`."""
    return tuple(rate(percent, metric, by, source, noise) for source, percent in percents.items())


# Who measured: the keyword, and the name that reports print.
NAMES = {
    "paper": "paper",
    "card": "model card",  # the official run again, with the published weights
    "vast": "Vast",  # Vastai/VastModelZOO with the official lists and scoring, clips over 30 s left out
    "lmms": "lmms-eval",
    "kimi": "Kimi-Audio-Evalkit",
    "ultra": "UltraEval-Audio",
    "leaderboard": "leaderboard",
    "readme": "README",
    "users": "users",
}
