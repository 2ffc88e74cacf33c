"""Rows as the bytes of a file: JSON lines, Parquet, CSV; and back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ..datasets.arrow import load_pyarrow
from ..datasets.line_log import json_line
from ..errors import JobError

Format = Literal["jsonl", "parquet"]
_IS_JSON = {b"qwen2_audio": b"json"}  # metadata of a column of Parquet that is JSON text, and a value elsewhere
Record = dict[str, Any]


def to_bytes(rows: Sequence[Record], format: Format, kinds: Mapping[str, str]) -> bytes:
    """A whole file. `kinds`: of the columns that do not come from the corpus, which so have one type in every part."""
    return to_jsonl(rows) if format == "jsonl" else to_parquet(rows, kinds)


def to_jsonl(rows: Sequence[Record]) -> bytes:
    return b"".join(json_line(row) for row in rows)


def to_parquet(rows: Sequence[Record], kinds: Mapping[str, str]) -> bytes:
    """Columns of the corpus have the types of their values; where those differ, they are JSON."""
    pyarrow = load_pyarrow()
    names = list(dict.fromkeys(name for row in rows for name in row)) or list(kinds)
    arrays = {name: _array(pyarrow, [row.get(name) for row in rows], kinds.get(name)) for name in names}
    columns = [
        pyarrow.field(name, array.type, metadata=_IS_JSON if kinds.get(name) == "json" else None)
        for name, array in arrays.items()
    ]
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(list(arrays.values()), schema=pyarrow.schema(columns)), sink)
    return sink.getvalue()


def _array(pyarrow: Any, values: list[Any], kind: str | None) -> Any:
    if kind == "json":
        return pyarrow.array([None if value is None else _as_json(value) for value in values], type=pyarrow.string())
    if kind is not None:
        try:
            return pyarrow.array(values, type=_type(pyarrow, kind))
        except UnicodeEncodeError:  # a path that is no UTF-8, in a note or an error
            return pyarrow.array(_as_utf8(values), type=_type(pyarrow, kind))
    try:
        array = pyarrow.array(values)
        if not _has_empty_struct(pyarrow, array.type):  # {} in all rows, which Parquet has no column for
            return array
    except (pyarrow.ArrowException, OverflowError, UnicodeEncodeError):
        pass
    return pyarrow.array([None if value is None else _as_json(value) for value in values], type=pyarrow.string())


def _as_utf8(value: Any) -> Any:
    """`value` with halves of surrogate pairs in its texts escaped, as JSON lines have them."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list):
        return [_as_utf8(item) for item in value]
    return {key: _as_utf8(item) for key, item in value.items()} if isinstance(value, dict) else value


def _has_empty_struct(pyarrow: Any, kind: Any) -> bool:
    if pyarrow.types.is_struct(kind) and not kind.num_fields:
        return True
    return any(_has_empty_struct(pyarrow, kind.field(index).type) for index in range(kind.num_fields))


def _as_json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return json.dumps(value)
    return text


def _type(pyarrow: Any, kind: str) -> Any:
    text, number, whole = pyarrow.string(), pyarrow.float64(), pyarrow.int64()
    segment = {
        "start": number, "end": number, "text": text, "language": text, "confidence": number,
        "flags": pyarrow.list_(text),
    }  # fmt: skip
    return {
        "text": text,
        "number": number,
        "whole": whole,
        "texts": pyarrow.list_(text),
        "numbers": pyarrow.list_(number),
        "vector": pyarrow.list_(pyarrow.float32()),
        "vectors": pyarrow.list_(pyarrow.list_(pyarrow.float32())),
        "usage": pyarrow.struct([("prompt_tokens", whole), ("audio_tokens", whole), ("completion_tokens", whole)]),
        "segments": pyarrow.list_(pyarrow.struct(list(segment.items()))),
    }[kind]


def read_rows(path: Path) -> Iterator[Record]:
    """The rows of a part. Raises JobError for a file that is damaged."""
    try:
        if path.suffix == ".jsonl":
            with path.open("rb") as file:
                for line in file:
                    yield json.loads(line)
        else:
            pyarrow = load_pyarrow()
            table = pyarrow.parquet.read_table(io.BytesIO(path.read_bytes()))
            as_text = [field.name for field in table.schema if _IS_JSON.items() <= (field.metadata or {}).items()]
            for row in table.to_pylist():
                yield row | {name: json.loads(row[name]) for name in as_text if row[name] is not None}
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> JobError:
    return JobError(f"{path} cannot be read ({error}); take it out, and its rows are asked again.")


def count_rows(path: Path) -> int:
    """The rows of a part, without parsing them. Raises JobError for a file that is damaged."""
    try:
        if path.suffix == ".jsonl":
            with path.open("rb") as file:
                return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
        return int(load_pyarrow().parquet.read_metadata(io.BytesIO(path.read_bytes())).num_rows)
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error


def write_csv(path: Path, parts: Sequence[Path]) -> int:
    """All rows as one table, whose columns are those of any row; lists and tables as JSON. Returns their number."""
    names = list(dict.fromkeys(name for part in parts for row in read_rows(part) for name in row))
    count = 0
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:  # paths that are no UTF-8
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        for part in parts:
            for row in read_rows(part):
                writer.writerow({name: _cell(value) for name, value in row.items()})
                count += 1
    return count


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else "" if value is None else value


def write_jsonl(path: Path, parts: Sequence[Path]) -> int:
    """All rows as JSON lines. Returns their number."""
    count = 0
    with path.open("wb") as file:
        for part in parts:
            for row in read_rows(part):
                file.write(json_line(row))
                count += 1
    return count


def write_parquet(path: Path, parts: Sequence[Path], kinds: Mapping[str, str]) -> int:
    """All rows as one Parquet file, a part a row group; `kinds` as of `to_bytes`. Returns their number. Raises JobError
    where a column has types that do not go together."""
    pyarrow = load_pyarrow()
    # The rows are read again below, those of one part at a time.
    schemas = [_schema(pyarrow, part, kinds) for part in parts] or [_of_rows(pyarrow, [], kinds).schema]
    try:
        schema = pyarrow.unify_schemas(schemas, promote_options="permissive")
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
        raise JobError(
            f"The parts have columns whose types do not go together ({error}); export to JSON lines."
        ) from error
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        return sum(_copy(pyarrow, _table(pyarrow, part, kinds), schema, writer) for part in parts)


def _copy(pyarrow: Any, table: Any, schema: Any, writer: Any) -> int:
    """The rows of a part, with all columns of the schema. Returns their number."""
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names
        else pyarrow.nulls(table.num_rows, field.type) for field in schema
    ]  # fmt: skip
    writer.write_table(pyarrow.table(columns, schema=schema))
    return int(table.num_rows)


def _schema(pyarrow: Any, part: Path, kinds: Mapping[str, str]) -> Any:
    if part.suffix == ".parquet":
        return pyarrow.parquet.read_schema(part)
    return _table(pyarrow, part, kinds).schema


def _table(pyarrow: Any, part: Path, kinds: Mapping[str, str]) -> Any:
    if part.suffix == ".parquet":
        return pyarrow.parquet.read_table(io.BytesIO(part.read_bytes()))
    return _of_rows(pyarrow, list(read_rows(part)), kinds)


def _of_rows(pyarrow: Any, rows: Sequence[Record], kinds: Mapping[str, str]) -> Any:
    return pyarrow.parquet.read_table(io.BytesIO(to_parquet(rows, kinds)))
