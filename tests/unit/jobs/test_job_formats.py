"""Rows as Parquet, whatever their columns hold."""

from __future__ import annotations

import io
import json

import pytest

from qwen2_audio.jobs.formats import to_parquet


@pytest.mark.parametrize(
    "values",
    [[{}, {}], [{"a": {}}, None], [[{}], []], [2**64, 1], [-(2**70)], [{"n": 2**64}], ["\ud800", "b"], [1, "b"]],
    ids=["empty", "empty inside", "empty in a list", "large", "below", "large inside", "half a pair", "mixed"],
)
def test_what_parquet_has_no_type_for_is_json(values):
    pyarrow = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.read_table(io.BytesIO(to_parquet([{"x": value} for value in values], {})))
    read = table.column("x").to_pylist()
    assert [None if text is None else json.loads(text) for text in read] == values
