"""Finds the file that a row names, where the folder looks other than its list expects.

Lists name clips as they lay on their authors' machines. Tried in this order: the path as it is, below each root and its
usual folders of sounds; without its first folders; then any file below the roots with the same name, whatever its
folder, case or ending.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from ..audio.io import local_path
from ..errors import AudioError

SOUND_ENDINGS = (
    ".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".mp4", ".aac", ".webm", ".wma", ".aiff", ".aif", ".au", ".sph",
    ".amr", ".mkv", ".mov", ".oga", ".wave", ".caf", ".w64",
)  # fmt: skip
_FOLDERS = ("", "clips", "audio", "audios", "wav", "wavs")  # where sounds lie beside their list
SEVERAL = "not, since several files have their name"
TAKEN = "not, since the file of that name is another row's"
_URL = re.compile(r"([a-z][a-z0-9+.-]*://|data:)", re.IGNORECASE)  # also of object stores
_SPLITS = {"validation": "dev", "valid": "dev", "val": "dev", "dev": "dev", "test": "test", "train": "train"}


class SoundFinder:
    """The files below some folders, by the names that rows give them. `repairs` counts what had to be done."""

    def __init__(self, *roots: Path) -> None:
        """`roots`: where relative paths start, the likeliest first."""
        self.roots = tuple(dict.fromkeys(roots))
        self.repairs: Counter[str] = Counter()
        self._way = (
            0,
            str(self.roots[0]) if self.roots else "",
        )  # folders left out, folder put in front: rows of a list mostly agree
        self._index: dict[str, list[Path]] | None = None
        self._claims: dict[str, str] = {}  # a file that was found by a repair -> the path that it was listed as

    def find(self, name: str) -> str:
        """The path of the file that `name` means; a URL, and a name that no file has, as it was given.

        What several files fit equally well, and what would be another row's repaired clip, counts as missing: a wrong
        clip is worse than none.
        """
        if name[:7].lower() == "file://":
            try:
                name = local_path(name)
            except (AudioError, ValueError):
                return name
        if _URL.match(name):
            return name
        if "\0" in name or len(name) > 4096:
            return name
        if os.path.isabs(name) and os.path.isfile(name):
            return name
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        found = self._nearby(parts) or self._anywhere(parts)
        if found is not None:
            path, repair = found
            if not repair or self._claims.setdefault(path, "/".join(parts)) == "/".join(parts):
                self.repairs.update([repair] if repair else [])
                return path
            self.repairs[TAKEN] += 1
        return name if os.path.isabs(name) else str(self.roots[0] / name)

    def _nearby(self, parts: list[str]) -> tuple[str, str] | None:
        """A file at one of the usual places, and how it was repaired, "" where it was not."""
        for left_out, folder in self._ways(parts):
            path = os.path.join(folder, *parts[left_out:])
            if os.path.isfile(path) and not _is_other_split(parts, Path(path), self.roots):
                self._way = (left_out, folder)
                return path, "without their first folders" if left_out else ""
        return None

    def _ways(self, parts: list[str]) -> Iterator[tuple[int, str]]:
        """(folders left out, folder put in front): that of the last row first."""
        count = len(parts)
        if self._way[0] < count:
            yield self._way
        if self._index is not None and parts and parts[-1].lower().endswith(SOUND_ENDINGS):
            return  # the index has all files: a hundred questions to the disk for each missing one are saved
        for left_out in range(count):
            for root in self.roots:
                for folder in _FOLDERS:
                    yield left_out, os.path.join(root, folder) if folder else str(root)

    def _anywhere(self, wanted: list[str]) -> tuple[str, str] | None:
        if not wanted:
            return None
        candidates = self._files().get(_stem(wanted[-1]), [])
        candidates = [path for path in candidates if not _is_other_split(wanted, path, self.roots)]
        ranked = sorted(((_likeness(wanted, path), path) for path in candidates), key=lambda pair: pair[0])
        if not ranked:
            return None
        if len(ranked) > 1 and ranked[-2][0] == ranked[-1][0]:
            self.repairs[SEVERAL] += 1
            return None
        path = ranked[-1][1]
        same_ending = path.suffix.lower() == Path(wanted[-1]).suffix.lower()
        return str(path), "by their name alone" if same_ending else "with another ending"

    def _files(self) -> dict[str, list[Path]]:
        """The sound files below the roots, by name without ending, in small letters. Read once, when first needed."""
        if self._index is None:
            self._index = {}
            for path in sound_files(*self.roots):
                self._index.setdefault(_stem(path.name), []).append(path)
        return self._index


class RemoteFinder(SoundFinder):
    """Names of a list in an object store: relative ones start at the list's folder. Nothing is searched there."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._folder = folder

    def find(self, name: str) -> str:
        return name if _URL.match(name) else f"{self._folder}/{name.removeprefix('./')}"


def sound_files(*roots: Path) -> Iterator[Path]:
    """The files below `roots` whose endings are a sound's, in order of their paths, each once.

    Links are followed, each folder once. Names that begin with a dot are left out: macOS makes `._clip.wav`.
    """
    seen: set[str] = set()
    for root in roots:
        for folder, names, files in os.walk(root, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen:
                names.clear()
                continue
            seen.add(real)
            names[:] = sorted(name for name in names if not name.startswith("."))
            for name in sorted(files):
                if not name.startswith(".") and name.lower().endswith(SOUND_ENDINGS):
                    yield Path(folder, name)


def files_below(folder: Path, matches: Callable[[str], object]) -> Iterator[Path]:
    """The files below `folder` (or itself) whose names in small letters match, in order of their paths.

    Folders called "clips" are not looked into: Common Voice has millions of files in them.
    """
    if folder.is_file():
        if matches(folder.name.lower()):
            yield folder
        return
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if name != "clips" and not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and matches(name.lower()):
                yield Path(parent, name)


def _stem(name: str) -> str:
    """A file's name in small letters, without an ending that is a sound's ("a.1.wav" is "a.1", and so is "a.1")."""
    lower = name.lower()
    ending = next((ending for ending in SOUND_ENDINGS if lower.endswith(ending)), "")
    return lower.removesuffix(ending)


def _likeness(wanted: list[str], path: Path) -> tuple[int, bool, bool, int]:
    """How well a file fits a path with the same stem: folders in common, name, name but for case, usual ending."""
    same = 0
    for mine, theirs in zip(reversed(wanted[:-1]), reversed(path.parts[:-1]), strict=False):
        if _folder(mine) != _folder(theirs):
            break
        same += 1
    rank = next((n for n, ending in enumerate(SOUND_ENDINGS) if path.name.lower().endswith(ending)), 0)
    return same, path.name == wanted[-1], path.name.lower() == wanted[-1].lower(), -rank


def _folder(name: str) -> str:
    return name.lower().removesuffix("_wav")  # MELD's clips as WAV files lie in folders named so


def _is_other_split(wanted: list[str], path: Path, roots: tuple[Path, ...]) -> bool:
    """Whether a row names a clip of one split, and the file is in a folder of another: names repeat between splits."""
    root = next((root for root in roots if path.is_relative_to(root)), None)
    folders = path.parts[:-1] if root is None else path.relative_to(root).parts[:-1]
    mine, theirs = _splits_of(wanted[:-1]), _splits_of(folders) or _splits_of((root.name,) if root else ())
    return bool(mine and theirs and not mine & theirs)


def _splits_of(folders: list[str] | tuple[str, ...]) -> set[str]:
    words = (word for folder in folders for word in re.split(r"[^a-z]+", folder.lower()))
    return {_SPLITS[word] for word in words if word in _SPLITS}
