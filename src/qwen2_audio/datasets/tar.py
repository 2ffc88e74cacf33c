"""Rows of tar shards, as WebDataset has them: neighbours whose names agree up to the first dot are one row.

"0042.flac", "0042.json" and "0042.txt" are the row 0042: its sound, its columns, and its column "text". Nothing is
unpacked; a sound is read from its place in the archive when it is asked for.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from functools import partial
from typing import Any

from ..errors import AudioError, DatasetError
from .paths import SOUND_ENDINGS
from .remote import File
from .row import EmbeddedSound

Found = tuple[dict[str, Any], EmbeddedSound | None, str]
_TEXTS = {"txt": "text", "text": "text", "transcript": "text", "cls": "label"}  # a member's ending -> its column
_LARGEST = 16 << 20  # bytes of a member with columns or text


def read_tar(path: File) -> Iterator[Found]:
    """The rows of a tar archive that is not compressed: (columns, sound, where). Raises DatasetError with the file."""
    key: str | None = None
    row: dict[str, Any] = {}
    sound: EmbeddedSound | None = None
    try:
        # A member of a compressed archive has no place to read it from later.
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                base = member.name.rsplit("/", 1)[-1]
                if not member.isreg() or base.startswith("."):
                    continue
                stem, _, ending = base.partition(".")
                own = member.name[: len(member.name) - len(base)] + stem
                if key is not None and own != key:
                    yield row, sound, f"{path.name}, {key}"
                    row, sound = {}, None
                if own != key:
                    key, row = own, {"key": own}
                if f".{ending.rsplit('.', 1)[-1].lower()}" in SOUND_ENDINGS:
                    if sound is not None:
                        raise DatasetError(f"{path.name}, {key} has two sounds; expected one.")
                    sound = _sound(path, member)
                else:
                    row |= _columns(path, archive, member, ending.lower())
    except (tarfile.TarError, OSError, EOFError) as error:
        hint = " Unpack it by gunzip first." if path.suffix in (".gz", ".tgz", ".bz2", ".xz") else ""
        raise DatasetError(f"{path} is no tar archive, or is damaged or compressed: {error}.{hint}") from error
    if key is not None:
        yield row, sound, f"{path.name}, {key}"


def _sound(path: File, member: tarfile.TarInfo) -> EmbeddedSound:
    name = f"{path.name}#{member.name}"
    return EmbeddedSound(name, partial(_read_member, path, name, member.offset_data, member.size))


def _read_member(path: File, name: str, start: int, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(size)
    except OSError as error:
        raise AudioError(f"{name} cannot be read: {error.strerror or error}.") from error
    if len(data) < size:
        raise AudioError(f"{name} is cut off ({len(data):,} of {size:,} bytes are there).")
    return data


def _columns(path: File, archive: tarfile.TarFile, member: tarfile.TarInfo, ending: str) -> dict[str, Any]:
    """What a member beside the sound adds to the row; nothing where its ending is not known."""
    where = f"{path.name}#{member.name}"
    if ending not in _TEXTS and ending != "json":
        return {}
    if member.size > _LARGEST:
        raise DatasetError(f"{where} has {member.size:,} bytes; expected a row's columns, at most {_LARGEST:,}.")
    file = archive.extractfile(member)
    assert file is not None  # it is a regular file
    try:
        text = file.read().decode("utf-8-sig")
        if ending != "json":
            return {_TEXTS[ending]: text.strip("\r\n")}
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{where} is no UTF-8 text, or not JSON: {error}.") from error
    return value if isinstance(value, dict) else {"json": value}
