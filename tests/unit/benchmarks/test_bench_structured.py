"""`python -m benchmarks structured` on a tiny checkpoint: its rows, and what they are made of."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from benchmarks.structured.run import Options, first_uses, run
from benchmarks.structured.schemas import schemas
from benchmarks.structured.vocabulary import WITHOUT_TEXT, WordTokenizer

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


def test_schemas_differ_and_are_schemas() -> None:
    made = schemas(20)
    for schema in made:
        jsonschema.Draft202012Validator.check_schema(schema)
    assert len({str(schema) for schema in made}) == 20
    tokenizer = WordTokenizer(1000)
    (compiled, _) = first_uses(tokenizer, 1000, 5)
    assert compiled.spread is not None and compiled.spread[0] > 0


def test_a_vocabulary_has_as_many_words_as_a_checkpoint() -> None:
    tokenizer = WordTokenizer(4000)
    assert len(tokenizer.get_vocab()) == 4000 - WITHOUT_TEXT
    assert sorted(tokenizer.get_vocab().values()) == list(range(4000 - WITHOUT_TEXT))
    assert len(tokenizer.encode("aé")) == 3
