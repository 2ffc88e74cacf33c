"""Benchmarks that ask about a clip: AIR-Bench, MMAU, MMAR, MMSU; a list in JSON, and a folder of clips."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...datasets.columns import ANSWER, QUESTION, first, sound_of
from ...datasets.lines import read_json
from ...datasets.paths import SoundFinder, files_below
from ...datasets.row import Row
from ...errors import DatasetError
from ..example import Example
from ..task import Task
from .build import Answered, Found, choices_of, example, text_of

Reader = Callable[[Task, Row], Example]
_NAMES = (
    "id audio_id audio_path path audio question choices options answer answer_gt choice_a choice_b choice_c choice_d "
    "task_name dataset_name uniq_id meta_info modality category sub-category sub-sub-category difficulty split dataset "
    "task linguistics_sub_discipline language source url timestamp subcategory thinking cue rubric"
)
KNOWN = frozenset(_NAMES.split())
_AUDIO_GROUNDING = "Audio_Grounding"
# Versions of mmau-test-mini.json by the beginning of their SHA-256 (EVAL D1); "broken": answers that are no choice.
MMAU_VERSIONS = {
    "bef649e4bdeb": "v1", "a5006730ccb3": "v1", "1b6d31d0b70c": "v1", "850c2794664d": "v1", "ed2fd6b6c24e": "v1",
    "e8cc09223b49": "v1", "d35ec10bc309": "v05.15.25 broken", "ea9f3f53085a": "v05.15.25 broken",
    "9da96f00e438": "v05.15.25 broken", "cafecebbb4e4": "v05.15.25", "cc59d9e3fad1": "v05.15.25",
    "157f1968a686": "v05.15.25", "e0042de8b994": "v05.15.25", "0bbabee60dcb": "v05.15.25", "5c63fe8f2de1": "v05.15.25",
    "3940399a013d": "v05.15.25", "9f18fda99f8d": "v05.15.25",
}  # fmt: skip


def airbench_chat(task: Task, data: Path) -> Found | None:
    """Chat/Chat_meta.json and Chat/{task_name}_{dataset_name}/{path}."""
    return _list_of(
        task, data, "airbench_chat", {"question", "answer_gt", "task_name", "uniq_id"}, read_chat, _no_choices
    )


def airbench_foundation(task: Task, data: Path) -> Found | None:
    """Foundation/Foundation_meta.json and Foundation/{task_name}_{dataset_name}/{path}."""
    keys = {"question", "answer_gt", "task_name", "choice_a"}
    return _list_of(task, data, "airbench_foundation", keys, read_foundation, lambda row: "dataset_name" in row)


def mmau(task: Task, data: Path) -> Found | None:
    """mmau-test-mini.json (or mmau-test.json) and test-mini-audios/."""
    keys = {"audio_id", "question", "choices"}
    return _list_of(task, data, "mmau", keys, read_choices, refuse=lambda path: _check_mmau(task, path))


def mmar(task: Task, data: Path) -> Found | None:
    """MMAR-meta.json (or .jsonl) and audio/."""
    return _list_of(task, data, "mmar", {"audio_path", "question", "choices", "modality"}, read_choices)


def mmsu(task: Task, data: Path) -> Found | None:
    """A list of question, choice_a to choice_d and answer_gt, and a folder of clips."""
    keys = {"question", "choice_a", "answer_gt", "category"}
    return _list_of(task, data, "mmsu", keys, read_choices, lambda row: "dataset_name" not in row)


def _no_choices(row: Mapping[str, Any]) -> bool:
    return "choice_a" not in row


def _list_of(
    task: Task,
    data: Path,
    layout: str,
    keys: set[str],
    read: Reader,
    fits: Callable[[Mapping[str, Any]], bool] = lambda row: True,
    refuse: Callable[[Path], None] = lambda path: None,
) -> Found | None:
    """The first list below `data` whose first row has `keys` and `fits`, and that `refuse` does not raise for.

    Raises DatasetError, `refuse`'s, where there are such lists but none is the task's.
    """
    refusals = []
    for path in files_below(data, lambda name: name.endswith((".json", ".jsonl"))):
        try:
            row, _ = next(read_json(path), ({}, ""))
        except DatasetError:
            continue
        if not (keys <= set(row) and fits(row)):
            continue
        try:
            refuse(path)
        except DatasetError as error:
            refusals.append(error)
            continue
        folder = path.parent
        finder = SoundFinder(folder, *([data] if data.is_dir() and data != folder else []))
        return Found(layout, (path,), _rows(task, path, finder, read), finder, KNOWN)
    if refusals:
        raise refusals[0]
    return None


def _rows(task: Task, path: Path, finder: SoundFinder, read: Reader) -> Iterator[Example]:
    for columns, where in read_json(path):
        sound = sound_of({"path": _clip_name(columns, where)}, finder, where)
        yield read(task, Row(_id_of(columns, where), sound, where, columns))


def _clip_name(columns: Mapping[str, Any], where: str) -> str:
    """Where a row's clip lies below the list's folder."""
    name = first(columns, ("audio_path", "path", "audio", "audio_id"))
    if not isinstance(name, str):
        raise DatasetError(f"{where} names no clip; expected audio_path, path or audio_id, found {', '.join(columns)}.")
    name = name.removeprefix("./")
    if "dataset_name" not in columns or "task_name" not in columns:
        return name
    if columns["task_name"] == _AUDIO_GROUNDING and len(name) > 3:
        name = name[:-3] + "flac"  # the list says wav, and the files are FLAC
    return f"{folder_of(columns)}/{name}"


def folder_of(columns: Mapping[str, Any]) -> str:
    """AIR-Bench's folder of a row, and its name of the part that the row belongs to."""
    return f"{columns['task_name']}_{columns['dataset_name']}"


def _id_of(columns: Mapping[str, Any], where: str) -> str:
    value = first(columns, ("id", "uniq_id", "audio_id", "audio_path"))
    return where if value is None else str(value).removeprefix("./")


def _question(columns: Mapping[str, Any]) -> str:
    return str(first(columns, QUESTION) or "")


def read_chat(task: Task, row: Row) -> Example:
    columns = row.columns
    reference = text_of(columns.get("answer_gt"))
    source = str(first(columns, ("task_name",)) or task.id)
    return example(task, row, Answered(source, reference, _question(columns), group=_clip(row)))


def read_foundation(task: Task, row: Row) -> Example:
    columns = row.columns
    source = folder_of(columns) if "dataset_name" in columns else str(first(columns, ("task_name",)) or task.id)
    reference = text_of(first(columns, ANSWER))
    return example(task, row, Answered(source, reference, _question(columns), choices_of(columns), _clip(row)))


def read_choices(task: Task, row: Row) -> Example:
    """A row of MMAU, MMAR or MMSU; its part (sound, music, speech, ...) stays in its columns."""
    reference = text_of(first(row.columns, ANSWER))
    source = task.sources[0][0]
    return example(task, row, Answered(source, reference, _question(row.columns), choices_of(row.columns), _clip(row)))


def _clip(row: Row) -> str:
    """Rows about one clip vary together."""
    if row.sound is None:
        return ""
    listed = first(row.columns, ("audio_path", "audio_id", "path"))
    return str(listed) if isinstance(listed, str) else row.sound.name


def mmau_version(path: Path) -> str | None:
    """Which version of MMAU's list a file is; None where it is none that is known."""
    return MMAU_VERSIONS.get(hashlib.sha256(path.read_bytes()).hexdigest()[:12])


def _check_mmau(task: Task, path: Path) -> None:
    """Raises DatasetError for the list of another version or split than the task's."""
    is_test = "mini" not in path.name.lower() and "test" in path.name.lower()
    if is_test != (task.id == "mmau-test"):
        raise DatasetError(f"{path} is the list of another split than {task.id}'s; give {task.title}'s list or folder.")
    version = mmau_version(path)
    if version is None or task.id == "mmau-test":
        return
    wanted = "v1" if task.id.endswith("-v1") else "v05.15.25"
    if version.split()[0] != wanted:
        other = "mmau-mini-v1" if wanted != "v1" else "mmau-mini"
        raise DatasetError(
            f"{path} is version {version} of MMAU's list, and {task.id} is {wanted}; run {other} instead."
        )
