"""Opens a corpus by looking at its file or folder: no name of a format has to be given.

JSON lines, JSON, CSV, TSV       one row an object or a line; the official lists, NeMo, open_asr, Kimi, UltraEval,
                                 ms-swift, Common Voice (also compressed by gzip)
Parquet, Arrow                   as published on the hub, and as `datasets.save_to_disk` writes them
tar shards                       WebDataset
wav.scp                          Kaldi
cuts, recordings + supervisions  lhotse
a folder of sounds               a row a file; a .txt beside it of the same name is its text

Also several files by *, ? and [...], and all but Arrow, Kaldi and lhotse in an object store, "s3://bucket/clips/".
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..audio.formats import format_of
from ..errors import DatasetError
from . import arrow, columns, kaldi, lhotse, lines, tar
from .paths import SOUND_ENDINGS, RemoteFinder, SoundFinder, files_below, sound_files
from .remote import File, RemoteFile, is_remote, list_remote
from .row import EmbeddedSound, Row, Sound

_TABLE_ENDINGS = (".csv", ".tsv")
_BINARY = (".arrow", ".parquet", ".tar")
_JSON_ENDINGS = (".jsonl", ".json", ".ndjson")
_STATE_FILES = ("dataset_dict.json", "dataset_info.json", "state.json")  # beside the data, not data
_Found = tuple[dict[str, Any], EmbeddedSound | None, str]


@dataclass(frozen=True)
class Corpus:
    """A corpus that was found; `rows` reads it, a row at a time."""

    path: File  # as it was given
    form: str  # "json", "table", "parquet", "arrow", "tar", "kaldi", "cuts", "supervisions", "sounds"
    files: tuple[File, ...]  # in the order they are read
    finder: SoundFinder = field(compare=False)

    def rows(self, *, unique: bool = True) -> Iterator[Row]:
        """Each row once, the same way every time. Raises DatasetError, which names the file and the line.

        Rows whose file is missing are given, too: reading their sound says so. `unique`: an id that was there before
        gets a number behind it, for which some 70 bytes a row are remembered; else ids are as they are.
        """
        ids = _Ids(self._folder(), unique)
        for file in self.files:
            for number, (row, embedded, where) in enumerate(_READERS[self.form](file), 1):
                sound = Sound(embedded) if embedded is not None else columns.sound_of(row, self.finder, where)
                yield Row(ids.make(row, sound, where, number), sound, where, columns.without_sounds(row))

    def count(self) -> int | None:
        """Its rows: files are read, sounds are neither looked for nor opened. Raises DatasetError.

        None: shards in a store, all of which would have to be fetched for it.
        """
        if self.form == "sounds":
            return len(self.files)
        if self.form == "tar" and isinstance(self.path, RemoteFile):
            return None
        if self.form == "parquet":
            return sum(map(arrow.count_parquet, self.files))
        return sum(1 for file in self.files for _ in _READERS[self.form](file))

    @property
    def paths(self) -> tuple[Path, ...]:
        """Its files on this machine. Raises DatasetError for those in a store."""
        paths = tuple(file for file in self.files if isinstance(file, Path))
        if len(paths) < len(self.files):
            raise DatasetError(f"{self.path} is in a store; expected files of this machine: fetch them first.")
        return paths

    def _folder(self) -> str:
        if isinstance(self.path, RemoteFile):
            return self.path.url.rstrip("/") if self.path not in self.files else self.path.folder
        return str(self.path if self.path.is_dir() else self.path.parent)


class _Ids:
    """Ids that are unique in a corpus, and the same whenever and wherever it is read."""

    def __init__(self, folder: str, unique: bool) -> None:
        self._folder, self._unique = folder, unique
        self._seen: set[int] = set()  # hashes: eight bytes a row are kept, not its name

    def make(self, row: dict[str, Any], sound: Sound | None, where: str, number: int) -> str:
        own = columns.first(row, columns.ID)
        if own is None:
            listed = columns.sound_value(row, where)
            listed = listed.get("path") if isinstance(listed, dict) else listed
            name = listed if isinstance(listed, str) and listed else sound.name if sound else str(number)
            own = _below(name, self._folder)
            if sound is not None and (sound.offset or sound.duration is not None):
                own = f"{own}@{sound.offset:g}"
        made, copies = str(own), 1
        while self._unique and hash(made) in self._seen:
            copies += 1
            made = f"{own}#{copies}"
        if self._unique:
            self._seen.add(hash(made))
        return made


def _below(name: str, folder: str) -> str:
    """A path or URL as it is called below `folder`, if it is there."""
    if is_remote(folder):
        return name.removeprefix(f"{folder}/")
    path = Path(name)
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else name


def _with_no_bytes(read: Callable[[Any], Iterator[tuple[dict[str, Any], str]]]) -> Callable[[Any], Iterator[_Found]]:
    return lambda path: ((row, None, where) for row, where in read(path))


def _read_supervisions(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    return lhotse.read_supervisions(_recordings_beside(path), path)


def _recordings_beside(supervisions: Path) -> Path:
    return supervisions.with_name(supervisions.name.replace("supervisions", "recordings"))


def _read_sound(path: File) -> Iterator[tuple[dict[str, Any], str]]:
    row: dict[str, Any] = {"audio": str(path)}
    if isinstance(path, Path) and (beside := path.with_suffix(".txt")).is_file():
        row["text"] = " ".join(line for _, line in lines.numbered_lines(beside) if line.strip())
    yield row, path.name


_READERS: dict[str, Callable[[Any], Iterator[_Found]]] = {
    "json": _with_no_bytes(lines.read_json),
    "table": _with_no_bytes(lines.read_table),
    "parquet": arrow.read_parquet,
    "arrow": arrow.read_arrow,
    "tar": tar.read_tar,
    "kaldi": _with_no_bytes(kaldi.read_kaldi),
    "cuts": _with_no_bytes(lhotse.read_cuts),
    "supervisions": _with_no_bytes(_read_supervisions),
    "sounds": _with_no_bytes(_read_sound),
}


def open_corpus(path: str | Path, *, sounds: Path | None = None) -> Corpus:
    """The corpus at `path`, a file or a folder; nothing but its beginning is read.

    sounds: another folder in which clips are looked for.
    Raises DatasetError: there is none, or several files could be meant; ConfigError where a package is missing.
    """
    if is_remote(str(path)):
        return _open_remote(str(path))
    path = Path(path)
    if not path.exists():
        if glob.has_magic(str(path)):
            return _open_matching(path)
        raise DatasetError(f"There is no file or folder {path}; relative paths start at {Path.cwd()}.")
    folder = path if path.is_dir() else path.parent
    form, files = _look_into(path) if path.is_dir() else (form_of(path), [path])
    roots = [*(file.parent for file in files[:1]), folder, *([sounds] if sounds else [])]
    if form == "kaldi":
        roots.append(Path.cwd())  # where Kaldi's own scripts start
    return Corpus(path, form, tuple(files), SoundFinder(*roots))


def _open_matching(pattern: Path) -> Corpus:
    """Several files of one form, by a pattern: shards, or sounds."""
    files = [Path(name) for name in sorted(glob.iglob(str(pattern), recursive=True)) if Path(name).is_file()]
    if not files:
        raise DatasetError(f"No file matches {pattern}; relative paths start at {Path.cwd()}.")
    forms = {form: path for path in files for form in [_form_by_name(path) or form_of(path)]}
    if len(forms) > 1:
        (first, one), (second, other), *_ = forms.items()
        raise DatasetError(f"{pattern} matches files of several forms: {one.name} ({first}), {other.name} ({second}).")
    fixed = next(folder for folder in pattern.parents if not glob.has_magic(str(folder)))
    return Corpus(fixed, next(iter(forms)), tuple(files), SoundFinder(files[0].parent, fixed))


def _open_remote(url: str) -> Corpus:
    files = list_remote(url)
    forms: dict[str, list[RemoteFile]] = {}
    for file in files:
        if (form := _form_by_name(file)) is not None:
            forms.setdefault(form, []).append(file)
    for form in ("parquet", "tar", "json", "table", "sounds"):  # as in a folder here
        if form in forms:
            if form in ("json", "table") and len(forms[form]) > 1 and not glob.has_magic(url):
                names = ", ".join(file.name for file in forms[form][:6])
                raise DatasetError(f"{url} holds {len(forms[form])} lists ({names}); give one of them.")
            given = RemoteFile(url if not glob.has_magic(url) else forms[form][0].folder)
            return Corpus(given, form, tuple(forms[form]), RemoteFinder(forms[form][0].folder))
    raise DatasetError(f"{url}: none of its {len(files)} files has a known ending, such as .jsonl, .tar, .flac.")


def _form_by_name(file: File) -> str | None:
    """How a file is read, by its ending alone: opening each of a million is not needed."""
    name = file.name.lower()
    if name.endswith(SOUND_ENDINGS):
        return "sounds"
    if name.endswith((".parquet", ".tar")):
        return name.rsplit(".", 1)[-1]
    name = name.removesuffix(".gz")
    return "table" if name.endswith(_TABLE_ENDINGS) else "json" if name.endswith(_JSON_ENDINGS) else None


def form_of(path: Path) -> str:
    """How the file at `path` is read, by its first bytes, and by its name where those leave a choice."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}.") from error
    if head[:4] == b"PAR1":
        return "parquet"
    if head[:6] == b"ARROW1" or head[:4] == b"\xff\xff\xff\xff":
        return "arrow"
    if head[257:262] == b"ustar":
        return "tar"
    if path.name.endswith("wav.scp"):
        return "kaldi"
    if path.name.lower().endswith(SOUND_ENDINGS) or ((known := format_of(head)) is not None and known.is_sound):
        return "sounds"
    return _form_of_text(path)


def _form_of_text(path: Path) -> str:
    start = next((line.strip() for _, line in lines.numbered_lines(path) if line.strip()), "")
    if not start:
        raise DatasetError(f"{path} is empty; expected rows.")
    if start[0] not in "{[":
        names = [name.lower() for name in lines.header_of(path)]
        if not any(name in (*columns.SOUND, *columns.TEXT) for name in names):
            raise DatasetError(
                f"{path}: the first line ({start[:60]!r}) names no column with a sound; expected JSON, or a table "
                f"whose first line names columns, as {', '.join(columns.SOUND[:3])}, {', '.join(columns.TEXT[:2])}."
            )
        return "table"
    if start[0] == "{":
        row = next(lines.read_json(path), ({}, ""))[0]
        if lhotse.is_cut(row):
            return "cuts"
        if "recording_id" in row and _recordings_beside(path) != path and _recordings_beside(path).is_file():
            return "supervisions"
    return "json"


def _look_into(folder: Path) -> tuple[str, list[Path]]:
    """How the rows of a folder are read, and from which files."""
    tables = list(files_below(folder, lambda name: name.endswith(_BINARY) and not name.startswith("cache-")))
    for ending in _BINARY:
        found = [path for path in tables if path.name.lower().endswith(ending)]
        if found:
            return ending[1:], found
    if (folder / "wav.scp").is_file():
        return "kaldi", [folder / "wav.scp"]
    manifest = _manifest_in(folder)
    if manifest is not None:
        return form_of(manifest), [manifest]
    found = list(sound_files(folder))
    if not found:
        raise DatasetError(
            f"{folder} holds neither a list of clips nor sound files; expected one of the forms in docs/datasets.md."
        )
    return "sounds", found


def _manifest_in(folder: Path) -> Path | None:
    """The one list in a folder; None: there is none. Raises DatasetError where several could be meant."""
    found = []
    for path in sorted(folder.iterdir()):
        name = path.name.lower().removesuffix(".gz")
        if path.is_file() and name.endswith((*_TABLE_ENDINGS, *_JSON_ENDINGS)) and path.name not in _STATE_FILES:
            if "recordings" in name and path.with_name(path.name.replace("recordings", "supervisions")).is_file():
                continue
            found.append(path)
    named = [path for path in found if path.name.lower().startswith(("metadata.", "manifest.", "cuts"))]
    found = named if len(named) == 1 else found
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:6])
        raise DatasetError(f"{folder} holds {len(found)} lists ({names}); give one of them.")
    return found[0] if found else None
