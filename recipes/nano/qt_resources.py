"""The files in a Qt resource collection (.rcc), as some packages keep their recordings."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from .errors import RecipeError

COMPRESSED, DIRECTORY, ZSTANDARD = 1, 2, 4  # flags of a node


def resources(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of every file in the collection `path`, in the order of its tree.

    The format is that of Qt's rcc, versions 1 to 3.

    Raises RecipeError for another file, and for content that is compressed by Zstandard.
    """
    blob = path.read_bytes()
    if blob[:4] != b"qres":
        raise RecipeError(f"{path} is no collection of Qt resources: it does not begin with qres.")
    version, tree, data, names = struct.unpack_from(">4I", blob, 4)
    node_size = 14 if version == 1 else 22  # since version 2 with the time of a file

    def name_at(offset: int) -> str:
        length = struct.unpack_from(">H", blob, names + offset)[0]
        start = names + offset + 6
        return blob[start : start + 2 * length].decode("utf-16-be")

    def walk(index: int, folder: str) -> Iterator[tuple[str, bytes]]:
        at = tree + index * node_size
        name, flags = struct.unpack_from(">IH", blob, at)
        here = f"{folder}/{name_at(name)}" if index else ""
        if flags & DIRECTORY:
            count, first = struct.unpack_from(">II", blob, at + 6)
            for child in range(first, first + count):
                yield from walk(child, here)
            return
        if flags & ZSTANDARD:
            raise RecipeError(f"{path}: {here} is compressed by Zstandard, which is not read here.")
        start = data + struct.unpack_from(">I", blob, at + 10)[0]
        size = struct.unpack_from(">I", blob, start)[0]
        content = blob[start + 4 : start + 4 + size]
        yield here.lstrip("/"), zlib.decompress(content[4:]) if flags & COMPRESSED else content

    yield from walk(0, "")
