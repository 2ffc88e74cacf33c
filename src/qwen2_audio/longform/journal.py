"""What was heard of a sound, window by window, in a file that a kill at any moment leaves readable.

The first line says what decides the answers; each other line is a window's segments, under the digest of its samples.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from .transcript import Segment, Word
from .windows import Window


class Journal:
    """Windows of one sound that are done.

    Attributes: `path`; `found`, how many an earlier run left; `note`, a sentence where the file could not be used or
    written, else None. A journal that cannot be written costs the work nothing but its safety.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        """`identity`: JSON of what decides the answers besides the samples; a file of another one is begun anew."""
        self.path = path
        self.note: str | None = None
        self._head = _line({"windows": 1, **identity})
        self._known: dict[str, list[Any]] = {}
        self._file: IO[bytes] | None = None
        self._size = 0  # bytes of the file's whole lines that are of use
        self._off = False  # it could not be written
        try:
            self._read(path.read_bytes() if path.exists() else b"")
        except OSError as error:
            self.note = f"{path} cannot be read ({error.strerror}); the sound is heard from its beginning."
        self.found = len(self._known)

    def _read(self, data: bytes) -> None:
        if not data.startswith(self._head):
            if data:
                self.note = f"{self.path} is of another model or of other options, and is begun anew."
            return
        self._size = len(self._head)
        for line in data[len(self._head) :].splitlines(keepends=True):
            try:
                key, segments = json.loads(line)
                if not line.endswith(b"\n"):
                    return
                self._known[key] = [_segment(value) for value in segments]
            except (ValueError, TypeError):  # torn by a kill: it is written again
                return
            self._size += len(line)

    def find(self, window: Window) -> list[Segment] | None:
        """The segments of a window that is done, else None."""
        return self._known.get(_key(window))

    def add(self, window: Window, segments: list[Segment]) -> None:
        """A window is done. It is kept before this returns."""
        if self._off:
            return
        try:
            if self._file is None:
                self._open()
            self._write(_line([_key(window), [asdict(segment) for segment in segments]]))
        except OSError as error:
            self._give_up(error)

    def _open(self) -> None:
        self._file = self.path.open("ab", buffering=0)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: another run writes the same files
        self._file.truncate(self._size)
        if not self._size:
            self._write(self._head)

    def _write(self, line: bytes) -> None:
        assert self._file is not None
        if self._file.write(line) != len(line):  # of a full disk a part may be written
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += len(line)

    def _give_up(self, error: OSError) -> None:
        self.note = (
            f"{self.path} cannot be written ({error.strerror}); what is heard from here on is lost if this ends early."
        )
        if self._file is not None and not isinstance(error, BlockingIOError):
            self._file.truncate(self._size)
        self.close()
        self._off = True

    def close(self) -> None:
        """The file stays, for the next run."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """The sound is done, and the file not needed any more."""
        self.close()
        self.path.unlink(missing_ok=True)


def _key(window: Window) -> str:
    samples = hashlib.sha256(window.samples.tobytes()).hexdigest()
    return f"{window.channel}:{window.start}:{samples}"


def _line(value: Any) -> bytes:
    return (json.dumps(value, sort_keys=True, default=str) + "\n").encode()


def _segment(value: dict[str, Any]) -> Segment:
    words = tuple(Word(**_with_tuples(word)) for word in value["words"])
    return Segment(**{**_with_tuples(value), "words": words})


def _with_tuples(value: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(item) if isinstance(item, list) else item for name, item in value.items()}
