"""Clips in .tar files, as WebDataset has them: "clips/shard-0001.tar#0042.flac" is the member 0042.flac of a shard.

Nothing is unpacked. Each process lists the members of an archive once; a clip is then read directly from its bytes in
the archive.
"""

from __future__ import annotations

import io
import tarfile
from functools import lru_cache
from pathlib import Path
from typing import IO

from ..errors import AudioError, did_you_mean

MARK = ".tar#"  # between the archive and the member's name


def split(path: Path) -> tuple[Path, str] | None:
    """Archive and member of "archive.tar#member"; None for any other path, and for a file that has such a name."""
    text = str(path)
    if MARK not in text or path.is_file():
        return None
    archive, member = text.split(MARK, 1)
    return Path(f"{archive}.tar"), member


def open_member(archive: Path, member: str) -> IO[bytes]:
    """One member as an open binary file, which the caller closes. Raises AudioError: no such archive or member, or no
    archive."""
    try:
        modified = archive.stat().st_mtime_ns
        members = _members(archive, modified)
        file = archive.open("rb", buffering=0)
    except FileNotFoundError:
        raise AudioError(f"No such file: {archive}. Relative paths start at the data file's folder.") from None
    except OSError as error:
        raise AudioError(f"{archive} cannot be read: {error.strerror}.") from error
    except tarfile.TarError as error:
        raise AudioError(f"{archive} is not a .tar archive, or is damaged: {error}.") from error
    if member not in members:
        file.close()
        near = did_you_mean(member, list(members))
        raise AudioError(f"{archive} has no member {member!r} among its {len(members)}.{near}")
    return io.BufferedReader(_Window(file, *members[member]))


@lru_cache(maxsize=64)
def _members(archive: Path, modified: int) -> dict[str, tuple[int, int]]:
    """Name -> offset and number of its bytes. `modified`, in ns, makes the cache list a changed archive again."""
    with tarfile.open(archive, "r:") as tar:  # uncompressed only: a member of a compressed one has no offset
        return {member.name: (member.offset_data, member.size) for member in tar if member.isreg()}


class _Window(io.RawIOBase):
    """A range of bytes of a file, as a file. Closing it closes the file."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file, self._start, self._size, self._position = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        self._file.seek(self._start + self._position)
        data = self._file.read(max(0, min(len(buffer), self._size - self._position)))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
