"""The one way to a task's rows in somebody's data: `find_examples`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from ...errors import DatasetError
from ..example import Example
from ..task import Task
from . import labels, questions, speech, spoken
from .build import Found
from .manifest import manifest
from .official import official_jsonl
from .published import parquet

Layout = Callable[[Task, Path], Found | None]  # None: the data are not laid out so
LAYOUTS: dict[str, Layout] = {
    "official_jsonl": official_jsonl,
    "librispeech": speech.librispeech,
    "aishell2": speech.aishell2,
    "common_voice": speech.common_voice,
    "fleurs": speech.fleurs,
    "covost2": speech.covost2,
    "meld": labels.meld,
    "vocalsound": labels.vocalsound,
    "airbench_chat": questions.airbench_chat,
    "airbench_foundation": questions.airbench_foundation,
    "mmau": questions.mmau,
    "mmar": questions.mmar,
    "mmsu": questions.mmsu,
    "voicebench": parquet,  # it is published in no other form
    "openaudiobench": spoken.openaudiobench,
    "parquet": parquet,
    "manifest": manifest,
}


def find_examples(task: Task, data: str | Path) -> Iterator[Example]:
    """The rows of `task` in `data`, a file or a folder in any of the task's layouts; ids are unique.

    Rows are read as they are asked for; clips are not. Raises DatasetError, in one sentence: nothing there, another
    task's or split's data, or a row that cannot be read, with its file and line.
    """
    return find(task, data).examples


def find(task: Task, data: str | Path) -> Found:
    """As `find_examples`, with what is known of the files."""
    data = Path(data)
    if not data.exists():
        raise DatasetError(f"There is no file or folder {data}; expected the data of {task.id}. {task.where}".rstrip())
    refusals = []
    for name in task.layouts:
        try:
            found = LAYOUTS[name](task, data)
        except DatasetError as error:  # another part's data are laid out so; in one folder there may be this one's, too
            refusals.append(error)
            continue
        if found is not None:
            found.examples = _unique(task, data, found.examples)
            return found
    if refusals:
        raise refusals[0]
    raise DatasetError(
        f"{data} holds nothing that is read as {task.title} ({task.id}); expected one of the layouts {', '.join(task.layouts)}. "
        f"{task.where}".rstrip()
    )


def _unique(task: Task, data: Path, examples: Iterator[Example]) -> Iterator[Example]:
    """`examples` with unique ids. Raises DatasetError where there is none at all."""
    seen: dict[str, int] = {}
    for example in examples:
        count = seen[example.id] = seen.get(example.id, 0) + 1
        yield example if count == 1 else replace(example, id=f"{example.id}#{count}")
    if not seen:
        raise DatasetError(f"{data} has no row of {task.id}: its lists are empty; expected at least one row.")
