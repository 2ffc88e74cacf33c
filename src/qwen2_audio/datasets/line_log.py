"""A file of lines that only grows, so that a kill at any moment costs at most the line it tears."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..errors import EvaluationError, Qwen2AudioError

SYNC_EVERY = 32  # lines between two fsyncs: a killed process loses none of them, a machine without power these
T = TypeVar("T")


class LineLog:
    """The lines of a file, and new ones behind them. `lines` are those that were there, without a torn last one.

    What goes wrong is raised as `error`: EvaluationError, or what the caller's room raises.
    """

    def __init__(self, path: Path, error: type[Qwen2AudioError] = EvaluationError) -> None:
        """Opens the file, or makes it. Raises `error` where another process writes into it, or none can."""
        self.path, self._error = path, error
        try:
            self._file = path.open("a+b", buffering=0)
        except OSError as reason:
            raise error(f"{path} cannot be written: {reason.strerror}; name another folder.") from reason
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file.seek(0)
            data = self._file.read()
            self._size = data.rfind(b"\n") + 1  # bytes of whole lines
            if self._size < len(data):
                self._file.truncate(self._size)
        except BlockingIOError as reason:
            self._file.close()
            raise error(
                f"Another run is writing into {path}; wait for it, or name another folder with --out."
            ) from reason
        except OSError as reason:
            self._file.close()
            raise cannot_write(path, reason, "nothing was changed", error) from reason
        self.lines = data[: self._size]
        self._count = self.lines.count(b"\n")
        self._unsynced = 0

    def add(self, line: bytes) -> None:
        """Append a line, with its end. Raises `error` where there is no room; the file then ends as before."""
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:]) or 0
            self._unsynced += 1
            if self._unsynced >= SYNC_EVERY:
                self._sync()
        except OSError as reason:
            self._file.truncate(self._size)
            raise cannot_write(self.path, reason, f"the {self._count} lines before are kept", self._error) from reason
        self._size += len(line)
        self._count += 1

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._unsynced = 0

    def close(self) -> None:
        if self._file.closed:
            return
        try:
            self._sync()
        except OSError:  # the lines are with the system, which says it to the next writer
            pass
        finally:
            self._file.close()


def parse_lines(
    data: bytes, path: Path, parse: Callable[[bytes], T], what: str, raised: type[Qwen2AudioError] = EvaluationError
) -> Iterator[T]:
    """What `parse` makes of each whole line. A last line without an end was torn by a kill, and is left out.

    Raises `raised` for a line of which `parse` raises ValueError, TypeError or KeyError.
    """
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        if not line.strip():
            continue
        try:
            yield parse(line)
        except (ValueError, TypeError, KeyError) as error:
            raise raised(
                f"{path}, line {number}, is no {what} ({error}); take the line out, and its row is asked again."
            ) from error


def json_line(value: Mapping[str, Any]) -> bytes:
    """`value` as one line of UTF-8; what JSON has no word for becomes text, and bytes their number."""
    try:
        return (json.dumps(value, ensure_ascii=False, default=_plain) + "\n").encode()
    except UnicodeEncodeError:  # a path that is no UTF-8
        return (json.dumps(value, default=_plain) + "\n").encode()


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy's
        return value.tolist()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"{len(value)} bytes"
    return dict(value) if isinstance(value, Mapping) else str(value)


def replace_file(path: Path, data: bytes, kept: str, raised: type[Qwen2AudioError] = EvaluationError) -> None:
    """Write a file whole or not at all. Raises `raised`, which says what is `kept`, where there is no room."""
    new = path.with_name(path.name + ".new")
    try:
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise cannot_write(path, error, kept, raised) from error


def cannot_write(
    path: Path, error: OSError, kept: str, raised: type[Qwen2AudioError] = EvaluationError
) -> Qwen2AudioError:
    """The error of a full disk, in one sentence."""
    return raised(f"{path} cannot be written: {error.strerror}; {kept}. Make room, and run the same command again.")
