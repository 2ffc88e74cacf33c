"""A job's rows as one file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ..errors import ConfigError, JobError
from .folder import ERRORS, PARTS, part_number
from .formats import write_csv, write_jsonl, write_parquet
from .operations import columns_of
from .records import ERROR, MODEL
from .status import status_of

ENDINGS = (".jsonl", ".parquet", ".csv")


def export(folder: Path, to: Path, *, errors: bool = False) -> int:
    """Write the answers of all whole parts into one file, in the corpus's order: .jsonl, .parquet or .csv by its name.

    errors: those of these parts instead. Returns the rows. Raises ConfigError for another ending, JobError where the
    folder holds no job or the file cannot be written; it is written whole or not at all.
    """
    if to.suffix not in ENDINGS:
        raise ConfigError(f"{to} ends in {to.suffix!r}; expected {', '.join(ENDINGS)}.")
    asked = status_of(folder).asked
    kinds = ERROR if errors else {**columns_of(asked), **MODEL}
    writers: dict[str, Callable[[Path, Sequence[Path]], int]] = {
        ".jsonl": write_jsonl, ".csv": write_csv, ".parquet": partial(write_parquet, kinds=kinds),
    }  # fmt: skip
    parts = _by_number(folder / PARTS)
    if errors:  # those of a part are written before its answers
        parts = {number: path for number, path in _by_number(folder / ERRORS).items() if number in parts}
    new = to.with_name(f".{to.name}.new")
    try:
        count = writers[to.suffix](new, [parts[number] for number in sorted(parts)])
        os.replace(new, to)
    except OSError as error:
        raise JobError(f"{to} cannot be written: {error.strerror}.") from error
    finally:
        new.unlink(missing_ok=True)
    return count


def _by_number(place: Path) -> dict[int, Path]:
    """The files of parts in a folder; from 100,000 parts on, their names are not in their order."""
    return {number: path for path in place.glob("part-*") if (number := part_number(path)) is not None}
