"""Sequences of samples or features made equally long, as the reference's feature extractors do: cut, filled, masked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError

Columns = dict[str, list[np.ndarray]]
STRATEGIES = {True: "longest", False: "do_not_pad", None: "do_not_pad"}


def columns_of(features: Mapping[str, Any] | Sequence[Mapping[str, Any]], name: str) -> tuple[Columns, str | None]:
    """Columns of arrays with one row a clip, and the `return_tensors` that gives what they were made of ("pt", "np").

    Takes one mapping, or a list of mappings with one clip each. Raises ConfigError if there is no column `name`.
    """
    if not isinstance(features, Mapping):
        features = {key: [row[key] for row in features] for key in (features[0] if features else {})}
    if name not in features:
        raise ConfigError(f"pad() found {sorted(features)}; expected a mapping with {name!r}.")
    rows = features[name]
    first = rows
    while isinstance(first, (list, tuple)) and len(first):
        first = first[0]
    tensors = "pt" if hasattr(first, "detach") else "np"
    return {key: [_as_array(row) for row in value] for key, value in features.items()}, tensors


def pad_features(
    columns: Columns,
    name: str,
    *,
    strategy: Any,
    max_length: int | None,
    truncation: bool,
    multiple_of: int | None,
    fill: tuple[float, str],
    mask: bool,
) -> Columns:
    """Rows of the column `name`, [T, ...], cut to `max_length` and filled up, and their mask if `mask` asks for it.

    Args:
        strategy: True or "longest"; "max_length"; False or "do_not_pad".
        truncation: cut rows to `max_length`; without it, longer rows stay as they are.
        multiple_of: `max_length` is rounded up to a multiple of this.
        fill: the value to fill with, and the side, "left" or "right".

    Raises:
        ConfigError: an unknown strategy or side, or no `max_length` where one is needed.
    """
    strategy = STRATEGIES.get(strategy, strategy) if isinstance(strategy, (bool, type(None))) else strategy
    if strategy not in ("longest", "max_length", "do_not_pad"):
        raise ConfigError(f"padding is {strategy!r}; expected True, 'longest', 'max_length', False or 'do_not_pad'.")
    if max_length is None and (truncation or strategy == "max_length"):
        raise ConfigError(f"{'truncation' if truncation else 'padding'} needs a length; pass max_length= as well.")
    rounded = _rounded(max_length, multiple_of)
    if truncation:
        columns = {key: [row[:rounded] if row.ndim else row for row in rows] for key, rows in columns.items()}
    rows = columns[name]
    if strategy == "longest":
        rounded = _rounded(max(map(len, rows), default=0), multiple_of)
    masks = columns.get("attention_mask") or [np.ones(len(row), np.int32) for row in rows]
    if strategy != "do_not_pad" and rounded is not None:
        rows = [_filled(row, rounded, *fill) for row in rows]
        masks = [_filled(row, rounded, 0, fill[1]) for row in masks]
    padded = {**columns, name: [row.astype(np.float32) if row.dtype == np.float64 else row for row in rows]}
    return {**padded, "attention_mask": masks} if mask else padded


def stacked(rows: Sequence[np.ndarray]) -> Any:
    """One array [A, T, ...] of rows of equal length; else the list of them."""
    return np.stack(rows) if len({row.shape for row in rows}) == 1 else list(rows)


def normalized(waveforms: Sequence[np.ndarray], lengths: Sequence[int], fill: float = 0.0) -> list[np.ndarray]:
    """Each waveform with mean 0 and variance 1 over its first `lengths[i]` samples; `fill` behind them."""
    out = []
    for waveform, length in zip(waveforms, lengths, strict=True):
        valid = waveform[:length]
        scaled = (waveform - valid.mean()) / np.sqrt(valid.var() + 1e-7)
        scaled[length:] = fill
        out.append(scaled)
    return out


def _rounded(length: int | None, multiple_of: int | None) -> int | None:
    return length if length is None or not multiple_of else -(-length // multiple_of) * multiple_of


def _filled(row: np.ndarray, length: int, value: float, side: str) -> np.ndarray:
    missing = max(length - len(row), 0)
    if side not in ("left", "right"):
        raise ConfigError(f"padding_side is {side!r}; expected 'left' or 'right'.")
    widths = [(missing, 0) if side == "left" else (0, missing), *[(0, 0)] * (row.ndim - 1)]
    return np.pad(row, widths, constant_values=value)


def _as_array(row: Any) -> np.ndarray:
    return row.detach().cpu().numpy() if hasattr(row, "detach") else np.asarray(row)
