"""Rows as Parquet, whatever their columns hold."""

from __future__ import annotations

import io
import json
import weakref

import pytest

from qwen2_audio.jobs import formats
from qwen2_audio.jobs.export import export
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


def job_with_parts(folder):
    (folder / "job.json").write_text("{}")
    for place in ("parts", "errors", "journal"):
        (folder / place).mkdir()
    for place, number in (("parts", 99_999), ("parts", 100_000), ("errors", 7), ("errors", 99_999)):
        (folder / place / f"part-{number:05}.jsonl").write_text(json.dumps({"id": str(number)}) + "\n")
    return folder


def ids_of(path):
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def test_parts_are_in_the_order_of_their_numbers_and_errors_are_those_of_whole_parts(tmp_path):
    folder, to = job_with_parts(tmp_path), tmp_path / "all.jsonl"
    assert export(folder, to) == 2 and ids_of(to) == ["99999", "100000"]
    assert export(folder, to, errors=True) == 1 and ids_of(to) == ["99999"]


def test_parquet_is_written_from_one_part_at_a_time(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow.parquet")
    paths = [tmp_path / f"part-{number:05}.jsonl" for number in range(6)]
    for number, path in enumerate(paths):
        path.write_text(f'{{"n": {number}, "c{number}": "x"}}\n')
    read, tables = formats._table, []

    def table(*arguments):
        assert not any(table() for table in tables), "the one before is still in memory"
        made = read(*arguments)
        tables.append(weakref.ref(made))
        return made

    monkeypatch.setattr(formats, "_table", table)
    assert formats.write_parquet(tmp_path / "all.parquet", paths, {}) == 6


NOT_UTF_8 = "caf\udce9.wav"  # a file's name in another encoding, as Python has it


@pytest.mark.parametrize("kind", ["text", "texts"])
def test_a_name_that_is_no_utf_8_is_escaped_in_columns_of_ours(kind):
    pyarrow = pytest.importorskip("pyarrow.parquet")
    said = f"{NOT_UTF_8} lasts 30.05 s"
    rows = [{"notes": said if kind == "text" else [said]}, {"notes": None}]
    table = pyarrow.read_table(io.BytesIO(to_parquet(rows, {"notes": kind})))
    assert r"caf\udce9.wav lasts" in str(table.column("notes").to_pylist()[0]).replace("\\\\", "\\")


def test_a_name_that_is_no_utf_8_is_in_every_export(tmp_path):
    job_with_parts(tmp_path)
    row = {"id": NOT_UTF_8, "notes": [NOT_UTF_8], "error": NOT_UTF_8}
    for place in ("parts", "errors"):
        (tmp_path / place / "part-99999.jsonl").write_text(json.dumps(row) + "\n")
    assert export(tmp_path, tmp_path / "all.csv") == 2
    assert r"caf\udce9.wav" in (tmp_path / "all.csv").read_text()
    pytest.importorskip("pyarrow")
    assert export(tmp_path, tmp_path / "errors.parquet", errors=True) == 1


def test_there_may_be_nothing_to_export(tmp_path):
    pyarrow = pytest.importorskip("pyarrow.parquet")
    job_with_parts(tmp_path)
    (tmp_path / "errors" / "part-99999.jsonl").unlink()
    assert export(tmp_path, tmp_path / "errors.parquet", errors=True) == 0
    assert pyarrow.read_table(tmp_path / "errors.parquet").column_names == ["row", "error", "kind"]
