"""`python -m benchmarks structured` on a tiny checkpoint: its rows, and what they are made of."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
import typer
from typer.testing import CliRunner

from benchmarks.main import command
from benchmarks.structured import run as structured
from benchmarks.structured.run import Options, first_uses, run
from benchmarks.structured.schemas import schemas
from benchmarks.structured.session import set_up
from benchmarks.structured.vocabulary import WITHOUT_TEXT, WordTokenizer
from qwen2_audio.errors import ConfigError

pytest.importorskip("llguidance")


def test_rows(folder: Path) -> None:
    rows = {row.name: row for row in run(Options(model=folder, quick=True, repeats=1, threads=1)).rows}
    limits = {name: row.limit for name, row in rows.items() if row.limit is not None}
    assert limits == {
        "structured.overhead_pct": 3.0, "structured.overhead_worst_pct": 3.0, "structured.compile_ms": 5.0,
        "decide.ratio": 5.0, "embed.batch_equal": 1e-5,
    }  # fmt: skip
    assert rows["structured.setup_s"].value and rows["structured.compile_ms"].value
    assert "every token refused" in rows["structured.overhead_worst_pct"].note
    assert rows["decide.ratio"].value and rows["decide.ratio"].value > 1
    assert rows["embed.batch_equal"].value is not None and rows["embed.batch_equal"].value <= 1e-5


def test_rows_are_chosen_by_name_and_each_runs_alone(folder: Path) -> None:
    for name in structured.ROWS:
        options = Options((name.removeprefix("structured."),), folder, repeats=1, quick=True, threads=1)
        (row,) = run(options).rows
        assert row.name == name and row.value is not None
    with pytest.raises(ConfigError, match=r"There is no row 'compile'; expected some of structured.overhead_pct, "):
        Options(("compile",))


def test_each_row_is_in_the_file_as_soon_as_it_is_there(folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    """What was measured before a later row failed is not lost."""

    class BrokenError(Exception):
        pass

    def broken(session, name):
        assert [row["name"] for row in json.loads(out.read_text())["rows"]] == ["structured.compile_ms"]
        raise BrokenError

    out = tmp_path / "rows.json"
    monkeypatch.setitem(structured.ROWS, "decide.ratio", broken)
    app = typer.Typer()
    app.command()(command)
    arguments = ["structured", "--quick", "--threads", "1", "--model", str(folder), "--json", str(out)]
    ran = CliRunner().invoke(app, [*arguments, "--rows", "compile_ms,decide.ratio"])
    assert isinstance(ran.exception, BrokenError)
    assert [row["name"] for row in json.loads(out.read_text())["rows"]] == ["structured.compile_ms"]
    assert re.search(r"^structured.compile_ms  [0-9.]+ ms ±", ran.stderr, re.M)


def test_schemas_differ_and_are_schemas() -> None:
    made = schemas(20)
    for schema in made:
        jsonschema.Draft202012Validator.check_schema(schema)
    assert len({str(schema) for schema in made}) == 20
    tokenizer = WordTokenizer(1000)
    grammars, seconds = set_up(tokenizer)
    compiled = first_uses(grammars, tokenizer.end, 5, "structured.compile_ms")
    assert seconds > 0 and compiled.spread is not None and compiled.spread[0] > 0


def test_a_vocabulary_has_as_many_words_as_a_checkpoint() -> None:
    tokenizer = WordTokenizer(4000)
    assert len(tokenizer.get_vocab()) == 4000 - WITHOUT_TEXT
    assert sorted(tokenizer.get_vocab().values()) == list(range(4000 - WITHOUT_TEXT))
    assert len(tokenizer.encode("aé")) == 3
