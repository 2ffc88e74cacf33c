"""Clips in .tar files, as WebDataset packs them: "clips/shard-0001.tar#0042.flac" is one member of one.

Nothing is unpacked to disk, nor a whole archive read: a list of its members is made once a process, and a clip is then
a window of the file.
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
    """Archive and member of "archive.tar#member"; None for any other path, and for a file that is called so."""
    text = str(path)
    if MARK not in text or path.is_file():
        return None
    archive, member = text.split(MARK, 1)
    return Path(f"{archive}.tar"), member


def open_member(archive: Path, member: str) -> IO[bytes]:
    """The bytes of one member; whoever asks closes it. Raises AudioError: no such archive, or member, or no archive."""
    try:
        changed = archive.stat().st_mtime_ns
        members = _members(archive, changed)
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
def _members(archive: Path, changed: int) -> dict[str, tuple[int, int]]:
    """Name -> where its bytes begin, and how many. `changed` has an archive that was written anew listed anew."""
    with tarfile.open(archive, "r:") as tar:  # not compressed: nothing could be found without reading all before it
        return {member.name: (member.offset_data, member.size) for member in tar if member.isreg()}


class _Window(io.RawIOBase):
    """Part of a file, as a file."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, origin + offset)
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        self._file.seek(self._start + self._at)
        data = self._file.read(max(0, min(len(buffer), self._size - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
