"""Rows of text files: JSON lines, JSON, and tables separated by tabs, commas or semicolons; also compressed by gzip."""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from ..errors import DatasetError
from .columns import CONVERSATION, SOUND, has_any
from .remote import File

Columns = dict[str, Any]
_BOM = b"\xef\xbb\xbf"
_BLOCK = 1 << 16  # bytes; a JSON list is read so much at a time
_SEPARATORS = re.compile(r"[\s,]*")


def open_text(path: File) -> IO[bytes]:
    """A text file, unpacked if it is gzip's whatever its name. Raises DatasetError where it cannot be opened."""
    try:
        file = path.open("rb")
        if file.read(2) == b"\x1f\x8b":
            if isinstance(path, Path):
                file.close()
                return gzip.open(path)  # type: ignore[return-value]
            file.seek(0)
            return gzip.open(file)  # type: ignore[return-value]
        file.seek(0)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}.") from error
    return file


def numbered_lines(path: File) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file with their numbers, from 1, without their ends. Raises DatasetError, with the line."""
    number = 0
    with open_text(path) as file:
        while True:
            try:
                line = file.readline()
            except (OSError, EOFError, zlib.error) as error:
                raise DatasetError(f"{path.name} is damaged after line {number}: {error}.") from error
            if not line:
                return
            number += 1
            try:
                text = line.removeprefix(_BOM if number == 1 else b"").decode("utf-8")
            except UnicodeDecodeError as error:
                raise DatasetError(f"{path.name}, line {number} is not UTF-8 text (byte {error.start}).") from error
            yield number, text.rstrip("\r\n")


def read_json(path: File) -> Iterator[tuple[Columns, str]]:
    """The objects of a file of JSON lines, of a JSON list, or of the one list in a JSON object; each with where it is.

    Raises DatasetError with file and line.
    """
    start = _beginning(path)
    if start == "[":
        yield from _list_items(path)
    elif start == "{" and (inside := _rows_of_object(path)) is not None:
        for number, row in enumerate(inside, 1):
            yield _checked(row, f"{path.name}, row {number}"), f"{path.name}, row {number}"
    else:
        for number, line in numbered_lines(path):
            if line.strip():
                where = f"{path.name}, line {number}"
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise DatasetError(f"{where} is not JSON ({error}); expected one object a line.") from error
                yield _checked(row, where), where


def _checked(row: Any, where: str) -> Columns:
    if not isinstance(row, dict):
        raise DatasetError(f"{where} is a {type(row).__name__}; expected an object with a row's columns.")
    return row


def _beginning(path: File) -> str:
    """The first character that is not a space, "" in an empty file."""
    for _, line in numbered_lines(path):
        if line.strip():
            return line.strip()[0]
    return ""


def _rows_of_object(path: File) -> list[Any] | None:
    """The list of rows in a file that is one JSON object, such as {"data": [...]}; None for JSON lines."""
    lines = ((number, line) for number, line in numbered_lines(path) if line.strip())
    _, line = next(lines)
    try:
        whole = json.loads(line)
        if next(lines, None) is not None:
            return None
    except (ValueError, RecursionError):
        try:  # an object over several lines
            whole = json.loads("\n".join([line, *(rest for _, rest in lines)]))
        except (ValueError, RecursionError):
            return None  # JSON lines, of which the first is broken; the reader says so
    lists = [value for value in whole.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
    has_rows = len(lists) == 1 and has_any(lists[0][0], (*SOUND, *CONVERSATION))
    return lists[0] if has_rows and not has_any(whole, (*SOUND, *CONVERSATION)) else None


def _list_items(path: File) -> Iterator[tuple[Columns, str]]:
    """The objects of a JSON list, of which no more than one and a block are in memory."""
    decoder, blocks = json.JSONDecoder(), _text_blocks(path)
    text, position, number = next(blocks, "").lstrip().removeprefix("["), 0, 0
    while True:
        position = _SEPARATORS.match(text, position).end()  # type: ignore[union-attr]
        if text.startswith("]", position):
            return
        where = f"{path.name}, row {number + 1}"
        try:
            row, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            text, position = text[position:], 0
            more = _at_least(len(text), blocks)  # as much again: block by block would take quadratic time
            if not more:
                raise DatasetError(f"{where} is not JSON ({error}); expected an object of a JSON list.") from error
            text += more
            continue
        number += 1
        yield _checked(row, where), where


def _at_least(count: int, blocks: Iterator[str]) -> str:
    """Blocks of together at least `count` characters, fewer at the end."""
    parts, length = [], 0
    while length <= count and (block := next(blocks, "")):
        parts.append(block)
        length += len(block)
    return "".join(parts)


def _text_blocks(path: File) -> Iterator[str]:
    import codecs

    decode = codecs.getincrementaldecoder("utf-8-sig")()
    with open_text(path) as file:
        while True:
            try:
                data = file.read(_BLOCK)
                text = decode.decode(data, final=not data)
            except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
                raise DatasetError(f"{path.name} is damaged, or no UTF-8 text: {error}.") from error
            if text:
                yield text
            if not data:
                return


def read_table(path: File, names: Sequence[str] | None = None) -> Iterator[tuple[Columns, str]]:
    """The rows of a table whose first line names the columns, or whose columns are `names`; each with where it is.

    Values are text. Raises DatasetError with file and line, also for a row with more or fewer values than columns.
    """
    separator = _separator(path)
    last = 0

    def lines() -> Iterator[str]:
        nonlocal last
        for last, line in numbered_lines(path):
            if line.strip() or last == 1:
                yield line + "\n"

    # Tables with tabs hold quotation marks of the text itself, Common Voice's for example.
    quoting = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
    reader = csv.reader(lines(), delimiter=separator, quoting=quoting)  # type: ignore[arg-type]
    while True:
        try:
            values = next(reader, None)
        except csv.Error as error:
            raise DatasetError(f"{path.name}, line {last} is no row of a table: {error}.") from error
        if values is None:
            return
        if names is None:
            names = [name.strip() for name in values]
            continue
        where = f"{path.name}, line {last}"
        if len(values) != len(names):
            raise DatasetError(f"{where} has {len(values)} values; expected {len(names)}, one for each column.")
        yield dict(zip(names, values, strict=True)), where


def header_of(path: File) -> list[str]:
    """The values of a table's first line."""
    separator = _separator(path)
    for _, line in numbered_lines(path):
        return [value.strip().strip('"') for value in line.split(separator)]
    return []


def _separator(path: File) -> str:
    for _, line in numbered_lines(path):
        return next((mark for mark in ("\t", ",", ";") if mark in line), ",")
    return ","
