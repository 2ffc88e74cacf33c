"""scores.json as lines of a table: a figure, its interval, and the published ones beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..score.labels import FAR_BELOW

PLAIN = ("bleu", "chrf", "score", "reference_score")  # measures that are no shares of 1
NAMES = {
    "wer": "word errors", "cer": "character errors",
    "wer_lenient": "… without phrases around", "cer_lenient": "… without phrases around",
    "wer_plain": "… without the normaliser", "cer_plain": "… without the normaliser", "wer_mean": "… mean of the rows'",
    "cer_mean": "… mean of the rows'", "bleu": "BLEU", "bleu_lenient": "… without phrases around",
    "accuracy_strict": "accuracy, strict", "accuracy_folded": "… case and stops folded",
    "accuracy_mapped": "… synonyms mapped",
    "macro_f1": "macro F1",
}  # fmt: skip
SIGNS = {
    "length_cap": "stopped at the limit of tokens", "empty": "are empty", "loop": "end in a loop",
    "other_language": "are in another language", "prefix_echo": "have a phrase before the transcript",
    "cut_clip": "are about clips of over 30 s, of which the first 30 s were heard",
}  # fmt: skip


@dataclass(frozen=True)
class Published:
    """A published figure beside ours."""

    by: str
    value: float
    difference: float
    distance: float | None  # in noise bands: within 1, chance alone explains the difference


@dataclass(frozen=True)
class Figure:
    """One measure of one part of a task's rows."""

    task: str
    part: str  # "" for all rows
    metric: str
    n: int
    value: float
    low: float | None
    high: float | None
    published: tuple[Published, ...] = ()
    minor: bool = False  # a second reading of the same answers

    @property
    def name(self) -> str:
        return NAMES.get(self.metric, self.metric.replace("_", " ").replace("@", ", judged by "))


def is_plain(metric: str) -> bool:
    return metric.partition("@")[0].removesuffix("_lenient") in PLAIN


def scaled(metric: str, value: float) -> float:
    """Shares in percent, as papers print them."""
    return value if is_plain(metric) else 100 * value


def shown(metric: str, value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{scaled(metric, value):.{digits}f}"


def unit(metric: str) -> str:
    return "" if is_plain(metric) else " %"


def figures_of(scored: Mapping[str, Any]) -> Iterator[Figure]:
    """A task's figures: the published measure first, then the other readings, then its parts."""
    metrics, primary = scored["metrics"], scored["primary"]
    yield from _figure(scored, "", primary, scored)
    for metric in metrics:
        if metric != primary:
            yield from _figure(scored, "", metric, scored, minor=True)
    if len(scored["sources"]) > 1:
        for name, part in scored["sources"].items():
            yield from _figure(scored, name, primary, part)
    for parts in scored["by"].values():
        for name, part in parts.items():
            yield from _figure(scored, name, primary, part)


def _figure(
    scored: Mapping[str, Any], part: str, metric: str, about: Mapping[str, Any], *, minor: bool = False
) -> Iterator[Figure]:
    figure = about["metrics"].get(metric)
    if figure is None or figure["value"] is None:
        return
    beside = [
        Published(one["by"], one["golden"], one["difference"], one["distance"])
        for one in scored["goldens"]
        if one["metric"] == metric and one["source"] == part
    ]
    yield Figure(
        scored["task"],
        part,
        metric,
        about["scored"],
        figure["value"],
        figure["low"],
        figure["high"],
        tuple(beside),
        minor,
    )


def signs_of(scored: Mapping[str, Any]) -> list[str]:
    """What went wrong whatever the score, a sentence each; empty where nothing did."""
    health, told = scored["health"], []
    for name, text in SIGNS.items():
        found = health.get(name)
        if found and found["n"]:
            told.append(f"{found['n']} of {health['answers']} answers {text} ({100 * found['share']:.1f} %).")
    for reason, count in scored["skipped"].items():
        told.append(f"{count} of {scored['n']} rows are not scored: {reason}.")
    if scored.get("judged"):
        told.append(f"Judged: {scored['judged']}.")
    told += _readings(scored)
    if scored.get("expected") and scored["expected"] != scored["n"]:
        told.append(f"{scored['n']} of the official list's {scored['expected']} rows.")
    needed = max((golden.get("rows_needed", 0) for golden in scored["goldens"]), default=0)
    if needed > scored["scored"]:
        told.append(f"An interval as narrow as the published figures' takes about {needed} rows.")
    return told


def _readings(scored: Mapping[str, Any]) -> list[str]:
    """How answers were read, and what would have come out without hearing."""
    told, metrics = [], scored["metrics"]
    strict, mapped = (metrics.get(f"accuracy_{name}", {}).get("value") for name in ("strict", "mapped"))
    if strict is not None and mapped is not None and mapped - strict > FAR_BELOW:
        told.append(
            f"Read strictly {100 * strict:.1f} % are right, with synonyms {100 * mapped:.1f} %: the answers are in "
            "other words, or spelt otherwise, than the references; look at the prompt and the checkpoint."
        )
    if scored.get("majority_accuracy") is not None:
        share = 100 * scored["majority_accuracy"]
        told.append(f"Always {scored['majority_label']!r} would be right in {share:.1f} %.")
    if scored.get("no_label"):
        told.append(f"{scored['no_label']} answers name no label, or two.")
    if scored.get("unparsed"):
        told.append(f"{scored['unparsed']} answers name no choice, and count as wrong; none was guessed.")
    if scored.get("random_guess") is not None:
        told.append(f"Guessing would be right in {100 * scored['random_guess']:.1f} %.")
    return told


def distance_text(one: Published, metric: str) -> str:
    """ "+0.10, within noise" """
    difference = scaled(metric, one.difference)
    if one.distance is None:
        return f"{difference:+.2f}"
    size = abs(one.distance)
    return f"{difference:+.2f}, within noise" if size <= 1 else f"{difference:+.2f}, {size:.1f} bands"
