"""Two runs side by side in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .figures import NAMES, shown, unit

FLIPS = 5  # rows that are printed; all of `compare`'s are in --json


def comparison_lines(found: Mapping[str, Any], first: str, second: str) -> Iterator[str]:
    """A task's figures of both, the difference with its interval, and the rows that changed most."""
    left_out = [
        f"{found[name]} {text}"
        for name, text in (
            ("only_first", "only in the first"), ("only_second", "only in the second"), ("failed", "failed in one"),
        )
        if found[name]
    ]  # fmt: skip
    rows = ", ".join([f"{found['common']} common rows", *left_out])
    yield f"{found['task']}: {rows}; {first}, then {second}"
    for metric, figures in found["metrics"].items():
        yield f"  {_figure_line(metric, figures)}"
    yield f"  {found['better']} rows better, {found['worse']} worse; {found['other_text']} answers differ"
    for flip in found["flips"][:FLIPS]:
        yield f"  {flip['id']} ({flip['change']:+.2f})"
        yield f"    right   {_line(flip['reference'])}"
        yield f"    first   {_line(flip['first'])}"
        yield f"    second  {_line(flip['second'])}"


def _figure_line(metric: str, figures: Mapping[str, Any]) -> str:
    name = NAMES.get(metric, metric.replace("_", " "))
    if figures["difference"] is None:
        return f"{name}: no figure in one of them"
    line = (
        f"{name}: {shown(metric, figures['first'])}{unit(metric)} to {shown(metric, figures['second'])}{unit(metric)}, "
    )
    line += f"{'' if figures['difference'] < 0 else '+'}{shown(metric, figures['difference'])}"
    if figures["low"] is not None:
        line += f" (95 %: {shown(metric, figures['low'])} to {shown(metric, figures['high'])}; p = {figures['p']:.3f})"
    if "rows_to_tell" in figures:
        line += f"; chance may explain it: about {figures['rows_to_tell']} rows would tell"
    if "mcnemar" in figures:
        test = figures["mcnemar"]
        line += f"; {test['gained']} rows gained, {test['lost']} lost, p = {test['p']:.3f} (McNemar)"
    return line


def _line(value: object) -> str:
    text = " ".join(str(value or "").split())
    return text if len(text) <= 160 else f"{text[:157]}..."
