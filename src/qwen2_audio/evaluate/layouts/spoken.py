"""Benchmarks whose question is spoken: VoiceBench (Parquet files), OpenAudioBench (a table and a folder of clips)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...datasets.columns import first, sound_of
from ...datasets.lines import read_table
from ...datasets.paths import SoundFinder, files_below
from ...datasets.row import Row
from ..example import Example
from ..task import Task
from .build import Answered, Found, example, refuse_other_parts, text_of, words

VOICEBENCH_FOLDERS = {
    "alpaca": ("alpacaeval_full",), "common": ("commoneval",), "wild": ("wildvoice",), "sdqa": ("sd-qa",),
    "obqa": ("openbookqa",), "mmsu": ("mmsu",), "bbh": ("bbh",), "ifeval": ("ifeval",), "advbench": ("advbench",),
}  # fmt: skip
VOICEBENCH_COLUMNS = frozenset(("audio", "prompt", "reference", "key", "instruction_id_list", "kwargs", "id", "domain"))
# Columns of OpenAudioBench's tables: the question as text, and its answer.
_OPENAUDIOBENCH = {
    "alpaca_eval": ("instruction", "output"), "trivia_qa": ("question", "answer_normalized_aliases"),
    "reasoning_qa": ("prompt", "参考答案"), "web_questions": ("question", "answers"),
    "llama_questions": ("questions", "answer"),
}  # fmt: skip


def voicebench_source(task: Task, inner: Path, data: Path) -> str | None:
    """The task's source of a file of VoiceBench: {subset}/{split}-00000-of-00001.parquet; None for another subset's."""
    names = [part.lower() for part in (*data.absolute().parts[-2:], *inner.parts)]
    subset = next(iter(VOICEBENCH_FOLDERS[task.id.removeprefix("voicebench-")]))
    if not any(name == subset or name.startswith((f"{subset}-", f"{subset}_", f"{subset}.")) for name in names):
        return None
    if len(task.sources) == 1:
        return task.sources[0][0]
    split = inner.name.lower().split("-0")[0]  # "usa" of usa-00000-of-00001.parquet, "ind_n"
    folder = inner.parent.name.lower()
    regions = {name.partition("_")[2]: name for name, _ in task.sources}
    return regions.get(split) or regions.get(folder)


def read_voicebench(task: Task, row: Row, source: str) -> Example:
    """`prompt` is what the clip says, as text: the model is not given it."""
    said = str(first(row.columns, ("prompt", "question")) or "")
    reference = text_of(first(row.columns, ("reference", "output")))
    return example(task, row, Answered(source, reference, said))


def openaudiobench(task: Task, data: Path) -> Found | None:
    """eval_datas/{subset}/{subset}.csv and audios/*.mp3."""
    tables = list(
        files_below(data, lambda name: name.endswith(".csv") and name.removesuffix(".csv") in _OPENAUDIOBENCH)
    )
    if not tables:
        return None
    subset = task.sources[0][0]
    mine = [path for path in tables if path.stem.lower() == subset]
    refuse_other_parts(task, data, mine, tables)
    finder = SoundFinder(mine[0].parent, mine[0].parent / "audios")
    known = frozenset(("audio_filename", *(name for pair in _OPENAUDIOBENCH.values() for name in pair)))
    return Found("openaudiobench", (mine[0],), _read_rows(task, mine[0], finder), finder, known)


def _read_rows(task: Task, table: Path, finder: SoundFinder) -> Iterator[Example]:
    for columns, where in read_table(table):
        row = Row(str(columns.get("audio_filename") or where), sound_of(columns, finder, where), where, columns)
        yield read_openaudiobench(task, row, task.sources[0][0])


def read_openaudiobench(task: Task, row: Row, source: str) -> Example:
    question, answer = _OPENAUDIOBENCH[task.sources[0][0]]
    said = str(first(row.columns, (question, "question", "prompt")) or "")
    return example(task, row, Answered(source, text_of(first(row.columns, (answer, "answer", "reference"))), said))


def openaudiobench_source(task: Task, inner: Path, data: Path) -> str | None:
    """The task's source of a copy of OpenAudioBench in Parquet files, by the subset's name in their paths."""
    subset = task.sources[0][0]
    return subset if words(subset) <= words("/".join((data.name, *inner.parts))) else None
