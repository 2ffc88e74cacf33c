"""From a row of a corpus to an Example: what all layouts share."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...datasets.columns import as_list, first, no_sound
from ...datasets.paths import SoundFinder
from ...datasets.row import Row, Sound
from ...errors import DatasetError
from ..example import Example
from ..prompts.prompt import question_prompt
from ..task import Task

_SAME_WORD = {
    "validation": "dev", "valid": "dev", "val": "dev", "eval": "test", "te": "test", "tr": "train", "training": "train",
}  # fmt: skip
EITHER = tuple(map(frozenset, (("dev", "test", "train"), ("clean", "other"), ("mic", "ios", "android"))))


@dataclass
class Found:
    """The rows of a task in somebody's data, not read yet."""

    layout: str  # its name in the registry
    files: tuple[Path, ...]  # lists and tables; not the clips
    examples: Iterator[Example]
    finder: SoundFinder | None = None  # what it had to repair is known once `examples` was read
    known: frozenset[str] = field(default_factory=frozenset)  # columns that the layout reads, in small letters


@dataclass(frozen=True)
class Answered:
    """What a layout reads out of a row's columns."""

    source: str
    reference: str | None = None
    question: str = ""
    choices: tuple[str, ...] = ()
    group: str = ""
    prompt: str | None = None  # the row's own, which wins over the task's
    extra: Mapping[str, Any] = field(default_factory=dict)  # columns added to the row's


def example(task: Task, row: Row, answered: Answered, *, id: str | None = None, sound: Sound | None = None) -> Example:
    """The Example of a row. Raises DatasetError where it has no sound."""
    sound = sound or row.sound
    if sound is None:
        raise no_sound(row.columns, row.where)
    prompt = answered.prompt
    if prompt is None and task.prompt is not None:
        prompt = question_prompt(task.prompt, answered.question, answered.choices)
    columns = {**row.columns, **answered.extra}
    if answered.question:
        columns["question"] = answered.question
    return Example(
        task.id, row.id if id is None else id, answered.source, sound, prompt, answered.reference, answered.choices,
        answered.group, columns, row.where,
    )  # fmt: skip


def words(text: str) -> frozenset[str]:
    """The words of a path or a name in small letters, splits by one name: "test.clean", "IOS/dev"."""
    found = re.findall(r"[a-z0-9]+", text.lower())
    return frozenset(_SAME_WORD.get(word, word) for word in found)


def source_with(task: Task, given: Iterable[str]) -> str | None:
    """The task's source whose words, the benchmark's own left out, are all among `given`; None: there is none.

    So "librispeech_test_clean" is the source of a path with "test" and "clean" in it.
    """
    given = frozenset(given)
    for name, _ in task.sources:
        if _own_words(task, name) <= given:
            return name
    return None


def _own_words(task: Task, source: str) -> frozenset[str]:
    family = task.id.split("-")[0]
    return frozenset(word for word in words(source) if not family.startswith(word))


def text_of(value: Any) -> str | None:
    """A reference as text; None where there is none."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and len(value) == 1:
        return text_of(value[0])
    return str(value)


def choices_of(columns: Mapping[str, Any]) -> tuple[str, ...]:
    """The choices of `choices` or `options`, a list, its JSON or a table of letters, or of choice_a to choice_d."""
    value = first(columns, ("choices", "options"))
    if isinstance(value, Mapping):
        return tuple(str(item) for item in value.values() if item is not None)
    if value is not None:
        return tuple(str(item) for item in as_list(value))
    single = (first(columns, (f"choice_{letter}",)) for letter in "abcdefgh")
    return tuple(str(choice) for choice in single if choice is not None)


def path_words(data: Path, path: Path) -> frozenset[str]:
    """The words of a path below what the user gave, and of that folder's own name.

    Of dev, test and train (and so on) the one nearest to the file counts; a name with several of them says nothing.
    """
    inner = path.relative_to(data).parts if path != data else (path.name,)
    given: frozenset[str] = frozenset()
    for name in (*inner[::-1], data.name if data.is_dir() else data.parent.name):
        found = words(name)
        for group in EITHER:
            if given & group or len(found & group) > 1:  # "AISHELL-DEV-TEST-SET"
                found -= group
        given |= found
    return given


def refuse_other_parts(task: Task, data: Path, mine: Collection[Any], every: Iterable[Path]) -> None:
    """Raises DatasetError where none of the parts that are there is the task's."""
    if mine:
        return
    folder = data if data.is_dir() else data.parent
    parts = sorted({str(path.relative_to(folder)) for path in every})
    names = ", ".join(parts[:4]) + (", ..." if len(parts) > 4 else "")
    wanted = ", ".join(name for name, _ in task.sources[:6]) or task.id
    raise DatasetError(f"{data} has no row of {task.id}: found {names}; expected {wanted}. Give this task's folder.")
