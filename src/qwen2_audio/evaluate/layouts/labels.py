"""MELD's emotions and VocalSound's kinds of sound, as their publishers lay them out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from ...datasets.columns import first, sound_of
from ...datasets.lines import header_of, read_json, read_table
from ...datasets.paths import SoundFinder, files_below
from ...datasets.row import Row
from ...errors import DatasetError
from ..example import Example
from ..task import Task
from .build import Answered, Found, example, refuse_other_parts, source_with

MELD_FOLDERS = {"dev": "dev_splits_complete", "test": "output_repeated_splits_test", "train": "train_splits"}
_MELD_NAMES = "utterance speaker emotion sentiment dialogue_id utterance_id season episode starttime endtime"
MELD_COLUMNS = frozenset(("sr no.", *_MELD_NAMES.split()))
_MELD_TABLE = re.compile(r"(dev|test|train)_sent_emo\.csv")
_VOCALSOUND_TABLES = {"te.json": "test", "val.json": "dev", "tr.json": "train"}
VOCAL_SOUNDS = {  # class_labels_indices_vs.csv
    "/m/01j3sz": "Laughter", "/m/07plz5l": "Sigh", "/m/01b_21": "Cough", "/m/0dl9sf8": "Throat clearing",
    "/m/01hsr_": "Sneeze", "/m/07ppn3j": "Sniff",
}  # fmt: skip
_NAMES = {name.lower().replace(" ", ""): name for name in VOCAL_SOUNDS.values()}  # as file names write them


def meld(task: Task, data: Path) -> Found | None:
    """MELD.Raw/{test_sent_emo.csv,output_repeated_splits_test/dia0_utt0.mp4}; or WAV files in a folder ..._wav."""
    tables = [path for path in files_below(data, _MELD_TABLE.fullmatch) if "Emotion" in header_of(path)]
    if not tables:
        return None
    mine = {path: source for path in tables if (source := source_with(task, {_split(path)})) is not None}
    refuse_other_parts(task, data, mine, tables)
    finder = SoundFinder(data if data.is_dir() else data.parent, *(path.parent for path in mine))
    rows = chain.from_iterable(_emotions(task, path, source, finder) for path, source in mine.items())
    return Found("meld", tuple(mine), rows, finder, MELD_COLUMNS)


def _split(table: Path) -> str:
    return table.name.lower().split("_")[0]


def _emotions(task: Task, table: Path, source: str, finder: SoundFinder) -> Iterator[Example]:
    split = _split(table)
    for columns, where in read_table(table):
        try:
            stem = f"dia{int(columns['Dialogue_ID'])}_utt{int(columns['Utterance_ID'])}"
        except (KeyError, ValueError):
            raise DatasetError(
                f"{where} has no numbers in Dialogue_ID and Utterance_ID; expected MELD's table."
            ) from None
        clip = {"audio": f"{MELD_FOLDERS[split]}/{stem}.mp4"}
        row = Row(f"{split}_{stem}", sound_of(clip, finder, where), where, columns)
        yield example(task, row, Answered(source, columns["Emotion"].strip(), group=f"{split}_{stem.split('_')[0]}"))


def vocalsound(task: Task, data: Path) -> Found | None:
    """datafiles/{te,val}.json and audio_16k/f0003_0_cough.wav."""
    lists = [path for path in files_below(data, _VOCALSOUND_TABLES.__contains__) if _is_vocalsound(path)]
    if not lists:
        return None
    splits = {path: _VOCALSOUND_TABLES[path.name.lower()] for path in lists}
    mine = {path: source for path, split in splits.items() if (source := source_with(task, {split})) is not None}
    refuse_other_parts(task, data, mine, lists)
    folder = data if data.is_dir() else data.parent
    finder = SoundFinder(
        *(root for root in (folder / "audio_16k", folder.parent / "audio_16k", folder) if root.is_dir())
    )
    rows = chain.from_iterable(_vocal_sounds(task, path, source, finder) for path, source in mine.items())
    return Found("vocalsound", tuple(mine), rows, finder, frozenset(("wav", "labels")))


def _is_vocalsound(path: Path) -> bool:
    try:
        row, _ = next(read_json(path), ({}, ""))
    except DatasetError:
        return False
    return "wav" in row and "labels" in row


def _vocal_sounds(task: Task, path: Path, source: str, finder: SoundFinder) -> Iterator[Example]:
    for columns, where in read_json(path):
        name = str(columns["wav"]).replace("\\", "/").rsplit("/", 1)[-1]  # before it: a folder of the authors' machine
        row = Row(name.rsplit(".", 1)[0], sound_of({"wav": name}, finder, where), where, columns)
        reference = vocal_sound(columns["labels"])
        if reference is None:
            raise DatasetError(
                f"{where} has the label {columns['labels']!r}; expected one of {', '.join(VOCAL_SOUNDS)}."
            )
        yield example(task, row, Answered(source, reference, group=row.id.split("_")[0]))


def vocal_sound(label: Any) -> str | None:
    """The name of a kind of sound, from AudioSet's number for it or from any spelling of its name; None for another."""
    text = str(label[0] if isinstance(label, list) and label else label).strip()
    return VOCAL_SOUNDS.get(text) or _NAMES.get(re.sub(r"[\s_-]", "", text.lower()))


def emotion_of(columns: Mapping[str, Any]) -> str | None:
    """MELD's emotion in a table with other names of its columns."""
    value = first(columns, ("emotion", "answer", "label", "gt"))
    return None if value is None else str(value).strip()
