"""Measured values to rows: medians, ratios, limits, and whether both sides computed the same."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence
from typing import Any

from qwen2_audio.bench.report import Row, more_is_better
from qwen2_audio.errors import ConfigError, did_you_mean

from .bars import RATIOS, bar

_TOLERANCE = 1e-4  # of the largest value; what two right outputs may differ by


def chosen(names: Sequence[str], known: Collection[str], prefix: str) -> tuple[str, ...]:
    """Names of rows as they are known, which may be given without `prefix`. Raises ConfigError for one that is none."""
    found = []
    for name in map(str.strip, names):
        whole = next((one for one in (name, prefix + name) if one in known), None)
        if whole is None:
            raise ConfigError(
                f"There is no row {name!r}; expected some of {', '.join(known)}.{did_you_mean(name, known)}"
            )
        found.append(whole)
    return tuple(found)


def row_of(name: str, unit: str, values: list[Any], note: str = "") -> Row:
    """A row of ours alone: the median, and the range where there are several values.

    A value is None where the system does not tell.
    """
    if None in values:
        return Row(name, None, unit, limit=bar(name))
    spread = (min(values), max(values)) if len(values) > 1 else None
    return Row(name, statistics.median(values), unit, limit=bar(name), spread=spread, note=note)


def row_with_peer(name: str, unit: str, values: list[list[Any]], checks: list[list[Any]]) -> Row:
    """Medians, their ratio, and whether both sides got the same. `values` and `checks`: ours, then the peer's if there
    is one."""
    if any(None in of_side for of_side in values):  # the system does not tell
        return Row(name, None, unit, limit=bar(name))
    if len(values) == 1:
        return row_of(name, unit, values[0])
    medians = [statistics.median(of_side) for of_side in values]
    spreads = [(min(of_side), max(of_side)) if len(of_side) > 1 else None for of_side in values]
    ratio = medians[0] / medians[1] if more_is_better(unit) else medians[1] / medians[0]
    note = compare(*checks)
    return Row(name, medians[0], unit, medians[1], ratio, bar(name), spreads[0], spreads[1], note, RATIOS.get(name))


def compare(ours: list[Any], peer: list[Any]) -> str:
    """What the two sides' results say: ids must be equal, values within 1e-4 of the largest."""
    if not ours and not peer:
        return ""
    if all(isinstance(value, int) for value in (*ours, *peer)):
        for position, (our_token, peer_token) in enumerate(zip(ours, peer, strict=True), 1):
            if our_token != peer_token:
                return f"token {position} differs: {our_token}, peer {peer_token}"
        return "same token" if len(ours) == 1 else f"same {len(ours)} tokens"
    if len(ours) != len(peer):
        return "outputs of different sizes"
    difference = max(abs(a - b) for a, b in zip(ours, peer, strict=True)) / max(abs(b) for b in peer)
    if difference <= _TOLERANCE:
        return f"same within {difference:.0e}"
    return f"outputs differ by {difference:.1e}"
