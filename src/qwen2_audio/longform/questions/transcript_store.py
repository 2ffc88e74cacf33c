"""Transcripts by the content of what was transcribed, so that a second question about a recording costs seconds."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
import weakref
from collections import OrderedDict
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import IO, Any, Protocol

from ...audio.io import SoundStream
from ...checkpoint.json_file import replacing
from ...types import Part
from ..transcribe import LIMITS

_MOST_CHARACTERS = 8 << 20  # of all transcripts in memory; an hour of speech has about 60,000
_MOST_FILES = 200
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Spoken:
    """What is said in a recording."""

    seconds: float  # of the recording
    heard: float  # s of it in windows; the rest holds no speech
    parts: tuple[Part, ...]  # with text
    notes: tuple[str, ...] = ()
    windows: int = 0

    @property
    def characters(self) -> int:
        return sum(len(part.text) + 32 for part in self.parts)


class TranscriptStore(Protocol):
    """Keeps transcripts. May be used by several threads."""

    def get(self, key: str) -> Spoken | None: ...

    def put(self, key: str, spoken: Spoken) -> None: ...


class MemoryStore:
    """The transcripts that were used last, in bounded memory."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Spoken] = OrderedDict()
        self._lock = Lock()

    def get(self, key: str) -> Spoken | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: str, spoken: Spoken) -> None:
        with self._lock:
            self._kept[key] = spoken
            self._kept.move_to_end(key)
            while sum(kept.characters for kept in self._kept.values()) > _MOST_CHARACTERS:
                self._kept.popitem(last=False)


class DiskStore:
    """A folder of JSON files, readable by their owner only: the 200 that were used last.

    A file that cannot be read counts as none; a folder that cannot be written is warned of, and nothing is kept.
    """

    def __init__(self, folder: Path, model: str) -> None:
        """`model`: what tells checkpoints and their settings apart; another one never reads this one's transcripts."""
        self._folder, self._model = folder, model

    def get(self, key: str) -> Spoken | None:
        path = self._path(key)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            parts = tuple(Part(float(start), float(end), str(text)) for start, end, text in data["parts"])
            spoken = Spoken(
                float(data["seconds"]), float(data["heard"]), parts, tuple(data["notes"]), int(data["windows"])
            )
            path.touch()
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return spoken

    def put(self, key: str, spoken: Spoken) -> None:
        data: dict[str, Any] = asdict(spoken)
        data["parts"] = [[part.start, part.end, part.text] for part in spoken.parts]
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with replacing(self._path(key)) as temporary:
                temporary.touch(mode=0o600)
                temporary.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
            files = sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
            for path in files[:-_MOST_FILES]:
                path.unlink(missing_ok=True)
        except OSError as error:
            warnings.warn(
                f"The transcript is not kept for the next question: {self._folder} cannot be written "
                f"({error.strerror}).",
                stacklevel=2,
            )

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(f"{key} {self._model}".encode()).hexdigest()[:40]
        return self._folder / f"{name}.json"


def user_folder() -> Path:
    """Where the command line keeps transcripts: in $XDG_CACHE_HOME, else ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "qwen2-audio" / "transcripts"


_STORES: weakref.WeakKeyDictionary[Any, TranscriptStore] = weakref.WeakKeyDictionary()
_stores_lock = Lock()


def store_of(model: Any) -> TranscriptStore:
    """That of a model; one in memory, unless `use_store` gave it another."""
    with _stores_lock:
        return _STORES.setdefault(model, MemoryStore())


def use_store(model: Any, store: TranscriptStore) -> None:
    """Keep the transcripts that a model makes in `store`."""
    with _stores_lock:
        _STORES[model] = store


def content_key(source: Any) -> str:
    """A hash of what a source holds: a file's bytes, else its samples. Raises AudioError for samples that are none."""
    digest = hashlib.sha256()
    if isinstance(source, str | os.PathLike) and os.path.isfile(source):
        with Path(source).open("rb") as file:
            _add_file(file, digest)
    elif hasattr(source, "seek"):
        _add_file(source, digest)
    elif isinstance(source, bytes | bytearray | memoryview):
        digest.update(source)
    else:
        for (block,) in SoundStream(source, limits=LIMITS).blocks():
            digest.update(block.tobytes())
    return digest.hexdigest()


def _add_file(file: IO[bytes], digest: Any) -> None:
    file.seek(0)
    while block := file.read(_BLOCK):
        digest.update(block)
    file.seek(0)
