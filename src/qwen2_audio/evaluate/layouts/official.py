"""The official lists of Qwen2-Audio, and of Qwen-Audio, whose rows have no `prompt`: lines of audio, gt, source."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...datasets.columns import sound_of, without_sounds
from ...datasets.corpus import Corpus, open_corpus
from ...datasets.lines import read_json
from ...datasets.row import Row
from ...errors import DatasetError
from ..example import Example
from ..task import Task
from .build import Answered, Found, example, source_with, words
from .speech import aishell_speaker

KNOWN = frozenset({"audio", "prompt", "gt", "source", "id", "query"})
# The lists' names for the tasks whose `source` names we have not seen: all of such a file is the task's.
_LISTS = {
    "librispeech": "librispeech_eval", "aishell2": "aishell2_eval", "cv15": "cv15_asr_{}_eval",
    "fleurs": "fleurs_asr_{}_eval", "covost2": "covost2_eval", "meld": "meld_eval", "vocalsound": "vocalsound_eval",
    "airbench": "airbench_level_3_eval",
}  # fmt: skip
_SEEN = re.compile(r"(librispeech|aishell2|covost)_", re.IGNORECASE)  # the families whose `source` names are certain
_PLACEHOLDER = re.compile(r"^(?:Audio \d+: )?(?:<\|audio_bos\|>)?<\|AUDIO\|>(?:<\|audio_eos\|>)?\n?")


def official_jsonl(task: Task, data: Path) -> Found | None:
    """The task's rows of an official list; None where `data` holds none. Raises DatasetError for another's list."""
    lists = [path for path in _json_lists(data) if _is_official(path)]
    if not lists:
        return None
    name = _list_name(task)
    mine = [path for path in lists if name is not None and name in path.name.lower()] or lists
    corpora = [open_corpus(path, sounds=data if data.is_dir() else None) for path in mine]
    wanted = [corpus for corpus in corpora if _has_row_of(task, corpus)]
    if not wanted:
        raise DatasetError(_not_there(task, mine))
    corpus = wanted[0]  # two lists of one task would be two versions of it
    return Found("official_jsonl", corpus.paths, _examples(task, corpus), corpus.finder, KNOWN)


def _list_name(task: Task) -> str | None:
    family, _, rest = task.id.partition("-")
    return _LISTS[family].format(rest) if family in _LISTS else None


def _json_lists(data: Path) -> list[Path]:
    if data.is_file():
        return [data]
    endings = ("jsonl", "jsonl.gz")  # not json: some data sets have one beside each clip
    return sorted(path for level in ("", "*/") for ending in endings for path in data.glob(f"{level}*.{ending}"))


def _is_official(path: Path) -> bool:
    try:
        row, _ = next(read_json(path), ({}, ""))
    except DatasetError:
        return False
    return set(row) >= {"audio", "gt", "source"} or set(row) >= {"audio", "query", "id"}


def _has_row_of(task: Task, corpus: Corpus) -> bool:
    path = corpus.paths[0]
    return any(_source_of(task, columns, path) is not None for columns, _ in read_json(path))


def _source_of(task: Task, columns: Mapping[str, Any], path: Path) -> str | None:
    """The source of a row of this task, None for a row of another."""
    own = columns.get("source")
    if own is None:  # the chat list
        return "chat" if "query" in columns and task.id == "airbench-chat" else None
    own = str(own)
    if not task.sources and task.id == "asr":
        return own
    registered = {name.lower(): name for name, _ in task.sources}
    if own.lower() in registered:
        return registered[own.lower()]
    if _SEEN.match(own):
        return None
    name, family = _list_name(task), task.id.split("-")[0]
    if any(_is_family(word, family) for word in words(own)):  # "meld_test_emotion" is the registry's "meld_test"
        return source_with(task, words(own))
    return own if name is not None and name in path.name.lower() else None


def _is_family(word: str, family: str) -> bool:
    return word == family or (len(word) > 3 and (word.startswith(family) or family.startswith(word)))


def _examples(task: Task, corpus: Corpus) -> Iterator[Example]:
    path = corpus.paths[0]
    for columns, where in read_json(path):
        source = _source_of(task, columns, path)
        if source is not None:  # clips of other tasks' rows are not looked for
            yield _example(
                task, Row("", sound_of(columns, corpus.finder, where), where, without_sounds(columns)), source
            )


def _example(task: Task, row: Row, source: str) -> Example:
    columns = row.columns
    if "query" in columns and "gt" not in columns:
        query = _PLACEHOLDER.sub("", str(columns["query"]))
        return example(
            task, row, Answered(source, None, query, group=str(columns["audio"]), prompt=query), id=str(columns["id"])
        )
    prompt = columns.get("prompt") or None
    audio = str(columns["audio"])
    return example(
        task, row, Answered(source, str(columns["gt"]), group=group_of(task, audio), prompt=prompt), id=audio
    )


def group_of(task: Task, audio: str) -> str:
    """Who speaks in a clip of the official lists, as far as its path says so; "" where it does not."""
    parts = audio.replace("\\", "/").split("/")
    stem = parts[-1].rsplit(".", 1)[0]
    family = task.id.split("-")[0]
    if family == "librispeech":  # 1272-128104-0000
        return stem.split("-")[0] if stem.count("-") == 2 else ""
    if family == "aishell2":  # wav/D0012/MD0012W0001
        return aishell_speaker(stem)
    if family == "meld":  # output_repeated_splits_test_wav/dia12_utt3
        dialogue = re.search(r"dia(\d+)_utt\d+", stem)
        split = next(iter({"dev", "test", "train"} & words(parts[-2])), "") if len(parts) > 1 else ""
        return f"{split}_dia{dialogue[1]}" if dialogue else ""
    if family == "vocalsound":  # f0003_0_cough
        return stem.split("_")[0] if stem.count("_") >= 2 else ""
    return ""


def _not_there(task: Task, lists: list[Path]) -> str:
    found: dict[str, int] = {}
    for path in lists:
        for columns, _ in read_json(path):
            source = str(columns.get("source", "rows without a source"))
            found[source] = found.get(source, 0) + 1
    names = ", ".join(f"{name} ({count})" for name, count in sorted(found.items())[:6])
    wanted = ", ".join(name for name, _ in task.sources) or task.id
    where = lists[0] if len(lists) == 1 else f"{lists[0].parent} ({len(lists)} lists)"
    return f"{where} has no row of {task.id}: found {names}; expected {wanted}. Give this task's list or folder."
