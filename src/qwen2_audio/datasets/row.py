"""One row of a corpus: where its sound lies, and every column it came with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class EmbeddedSound:
    """A sound that is no file of its own: bytes in a Parquet or Arrow column, or a member of a tar."""

    name: str  # for messages and for the format's ending, "shard-0001.tar#0042.flac"
    read: Callable[[], bytes]  # called when the row's turn comes, so that a corpus is never held in memory


@dataclass(frozen=True)
class Sound:
    """Where a row's sound lies, or which part of it; nothing is decoded yet."""

    source: (
        str | EmbeddedSound
    )  # a file's path (absolute, or relative to the working directory), a URL, or embedded bytes
    offset: float = 0.0  # seconds from the file's beginning
    duration: float | None = None  # seconds; None: to the end

    @property
    def name(self) -> str:
        return self.source if isinstance(self.source, str) else self.source.name


@dataclass(frozen=True)
class Row:
    """A row as it was found. `columns` keeps every input column, those that we do not know, too."""

    id: str  # unique in its corpus: the row's own id, else the sound's path below the corpus's folder, else its number
    sound: Sound | None
    where: str  # for messages: "test.tsv, line 7"
    columns: Mapping[str, Any] = field(default_factory=dict)
