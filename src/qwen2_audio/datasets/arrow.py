"""Rows of Parquet files, and of the Arrow files of `datasets.save_to_disk`; the one place that imports pyarrow.

An audio column is a struct {bytes, path}. Its bytes are read when a row's sound is asked for, and not before.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import AudioError, ConfigError, DatasetError
from .columns import SOUND
from .remote import File
from .row import EmbeddedSound

Found = tuple[dict[str, Any], EmbeddedSound | None, str]  # columns, the sound if its bytes are here, where
_LARGE = 256 << 20  # bytes of a row group's sounds, above which it is not held as a whole
_FEW = 8  # rows of such a group that are held at a time
_lock = threading.Lock()  # a ParquetFile is one thread's at a time


def load_pyarrow() -> ModuleType:
    """The pyarrow package, with its Parquet and IPC readers. Raises ConfigError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(
            "Reading or writing Parquet and Arrow needs pyarrow: pip install 'qwen2-audio[parquet]'."
        ) from error
    found: ModuleType = pyarrow
    return found


def read_parquet(path: File) -> Iterator[Found]:
    """The rows of a Parquet file. Raises DatasetError with the file, ConfigError without pyarrow."""
    pyarrow = load_pyarrow()
    with _errors_of(path, pyarrow), pyarrow.parquet.ParquetFile(_seekable(path)) as file:
        audio = _audio_column(file.schema_arrow, pyarrow)
        columns = [field.name for field in file.schema_arrow if field.name != audio]
        if audio is not None and file.schema_arrow.field(audio).type.get_field_index("path") >= 0:
            columns.append(f"{audio}.path")
        number = 0
        for group in range(file.num_row_groups):
            embedded = audio is not None and _has_bytes(file.metadata.row_group(group), audio)
            for index, row in enumerate(_rows_of_group(file, group, columns)):
                number += 1
                yield (
                    row,
                    _in_parquet(path, group, index, audio, row) if embedded else None,
                    f"{path.name}, row {number}",
                )


def count_parquet(path: File) -> int:
    """The rows of a Parquet file, by its end alone. Raises as `read_parquet`."""
    pyarrow = load_pyarrow()
    with _errors_of(path, pyarrow), pyarrow.parquet.ParquetFile(_seekable(path)) as file:
        return int(file.metadata.num_rows)


def _seekable(path: File) -> Any:
    return path if isinstance(path, Path) else path.open()


def _rows_of_group(file: Any, group: int, columns: list[str]) -> Iterator[dict[str, Any]]:
    if not columns:
        for _ in range(file.metadata.row_group(group).num_rows):
            yield {}
        return
    for batch in file.iter_batches(batch_size=256, row_groups=[group], columns=columns):
        yield from batch.to_pylist()


def _audio_column(schema: Any, pyarrow: ModuleType) -> str | None:
    """The column that holds encoded sounds: a struct with bytes, or bytes themselves; None: there is none."""
    structs = [f.name for f in schema if pyarrow.types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0]
    plain = [
        f.name for f in schema if f.name.lower() in SOUND
        and (pyarrow.types.is_binary(f.type) or pyarrow.types.is_large_binary(f.type))
    ]  # fmt: skip
    known = sorted(
        structs or plain, key=lambda name: SOUND.index(name.lower()) if name.lower() in SOUND else len(SOUND)
    )
    return known[0] if known else None


def _has_bytes(group: Any, audio: str) -> bool:
    """Whether a row group may hold sounds; not where its statistics say that every one is null."""
    for index in range(group.num_columns):
        column = group.column(index)
        if column.path_in_schema in (audio, f"{audio}.bytes"):
            statistics = column.statistics
            return statistics is None or not statistics.has_null_count or statistics.null_count < group.num_rows
    return False


def _in_parquet(path: File, group: int, index: int, audio: str | None, row: dict[str, Any]) -> EmbeddedSound:
    name = _name(path, row.get(str(audio)), f"row {index + 1} of group {group + 1}")
    return EmbeddedSound(name, partial(_read_from_parquet, path, group, index, str(audio), name))


def _read_from_parquet(path: File, group: int, index: int, audio: str, name: str) -> bytes:
    return _bytes_or_error(_sound_in_parquet(path, group, index, audio), name)


def _name(path: File, value: Any, number: str) -> str:
    inner = value.get("path") if isinstance(value, dict) else None
    return f"{path.name}#{inner or number}"


def _bytes_or_error(data: bytes | None, name: str) -> bytes:
    if data is None:
        raise AudioError(f"{name} holds no bytes; expected an encoded sound in its column.")
    return data


def _sound_in_parquet(path: File, group: int, index: int, audio: str) -> bytes | None:
    with _lock:
        sounds, first = _some_sounds(path, group, index // _FEW, audio)
    value = sounds[index - first].as_py()
    return value.get("bytes") if isinstance(value, dict) else value


def _some_sounds(path: File, group: int, part: int, audio: str) -> tuple[Any, int]:
    """The sounds of a row group, or of a large one the `part`-th few; and the first one's number in the group."""
    return _whole_group(path, group, audio) or (_part_of_group(path, group, part, audio), part * _FEW)


@lru_cache(maxsize=2)
def _whole_group(path: File, group: int, audio: str) -> tuple[Any, int] | None:
    pyarrow = load_pyarrow()
    with _errors_of(path, pyarrow), pyarrow.parquet.ParquetFile(_seekable(path)) as file:
        metadata = file.metadata.row_group(group)
        chunks = [metadata.column(index) for index in range(metadata.num_columns)]
        size = sum(c.total_uncompressed_size for c in chunks if c.path_in_schema.split(".")[0] == audio)
        if size > _LARGE:
            return None
        return file.read_row_group(group, columns=[audio]).column(0).combine_chunks(), 0


@lru_cache(maxsize=4)
def _part_of_group(path: File, group: int, part: int, audio: str) -> Any:
    pyarrow = load_pyarrow()
    with _errors_of(path, pyarrow), pyarrow.parquet.ParquetFile(_seekable(path)) as file:
        for number, batch in enumerate(file.iter_batches(batch_size=_FEW, row_groups=[group], columns=[audio])):
            if number == part:
                return batch.column(0)
    raise DatasetError(f"{path} was changed while it was read: row group {group + 1} has become shorter.")


def read_arrow(path: Path) -> Iterator[Found]:
    """The rows of an Arrow file, stream or random access. Raises as `read_parquet`.

    The file is mapped: a row's sound is in memory only while it is read.
    """
    pyarrow = load_pyarrow()
    number = 0
    with _errors_of(path, pyarrow):
        for place, batch in enumerate(_batches(pyarrow, path)):
            audio = _audio_column(batch.schema, pyarrow)
            rows = _without_bytes(batch, audio, pyarrow)
            for index, row in enumerate(rows):
                number += 1
                yield row, _in_arrow(_Slot(path, place, index, number), batch, audio, row), f"{path.name}, row {number}"


def _batches(pyarrow: ModuleType, path: Path) -> Iterator[Any]:
    mapped = pyarrow.memory_map(str(path))
    if mapped.read(6) == b"ARROW1":
        reader = pyarrow.ipc.open_file(mapped)
        yield from (reader.get_batch(index) for index in range(reader.num_record_batches))
    else:
        mapped.seek(0)
        yield from pyarrow.ipc.open_stream(mapped)


def _without_bytes(batch: Any, audio: str | None, pyarrow: ModuleType) -> list[dict[str, Any]]:
    """The batch's rows; of an audio struct, its path alone."""
    names = [field.name for field in batch.schema if field.name != audio]
    rows: list[dict[str, Any]] = batch.select(names).to_pylist() if names else [{} for _ in range(batch.num_rows)]
    if audio is not None and pyarrow.types.is_struct(batch.schema.field(audio).type):
        column = batch.column(audio)
        has_path = column.type.get_field_index("path") >= 0
        paths = column.field("path").to_pylist() if has_path else [None] * len(rows)
        for row, inner in zip(rows, paths, strict=True):
            row[audio] = {"path": inner}
    return rows


@dataclass(frozen=True)
class _Slot:
    """Where a row stands in an Arrow file; picklable, so that another process can read its sound."""

    path: Path
    batch: int
    index: int  # in the batch
    number: int  # in the file, from 1, for messages


def _in_arrow(slot: _Slot, batch: Any, audio: str | None, row: dict[str, Any]) -> EmbeddedSound | None:
    if audio is None or not _sounds_of(batch, audio)[slot.index].is_valid:
        return None
    name = _name(slot.path, row.get(audio), f"row {slot.number}")
    return EmbeddedSound(name, partial(_read_from_arrow, slot, audio, name))


def _sounds_of(batch: Any, audio: str) -> Any:
    column = batch.column(audio)
    return column if str(column.type) in ("binary", "large_binary") else column.field("bytes")


def _read_from_arrow(slot: _Slot, audio: str, name: str) -> bytes:
    with _lock:
        batch = _batch(slot.path, slot.batch)
    return _bytes_or_error(_sounds_of(batch, audio)[slot.index].as_py(), name)


@lru_cache(maxsize=4)
def _batch(path: Path, place: int) -> Any:
    """A batch of a mapped file: nothing of it is in memory before it is read."""
    pyarrow = load_pyarrow()
    with _errors_of(path, pyarrow):
        for number, batch in enumerate(_batches(pyarrow, path)):
            if number == place:
                return batch
    raise DatasetError(f"{path} was changed while it was read: it has become shorter.")


@contextmanager
def _errors_of(path: File, pyarrow: ModuleType) -> Iterator[None]:
    """Makes pyarrow's errors a DatasetError with the file's name."""
    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DatasetError(f"{path} cannot be read as a Parquet or Arrow file: {reason}.") from error
