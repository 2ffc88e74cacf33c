"""A user's own data for the tasks `asr` and `qa`: any form that datasets/ reads."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from ...datasets import columns as names
from ...datasets.columns import first, has_any, speaker_of, spoken_turns
from ...datasets.corpus import Corpus, open_corpus
from ...datasets.row import Row
from ...errors import DatasetError
from ..example import Example
from ..task import Task
from .build import Answered, Found, choices_of, example, text_of

KNOWN = frozenset(
    (*names.SOUND, *names.TEXT, *names.QUESTION, *names.ANSWER, *names.ID, *names.SPEAKER, *names.PLACE,
     *names.CONVERSATION, "prompt", "choices", "options", "choice_a", "choice_b", "choice_c", "choice_d", "source",
     "subset", "language", "key", "category")
)  # fmt: skip
_SOURCE = ("source", "subset", "dataset", "split")


def manifest(task: Task, data: Path) -> Found | None:
    """Rows with a text (asr), or with a question and its answer (qa). Raises DatasetError where the first has none."""
    corpus = open_corpus(data)
    return Found("manifest", corpus.paths, _examples(task, corpus), corpus.finder, KNOWN)


def _examples(task: Task, corpus: Corpus) -> Iterator[Example]:
    rows = corpus.rows()
    start = next(rows, None)
    if start is None:
        raise DatasetError(f"{corpus.path} has no rows; expected at least one clip.")
    for row in chain((start,), rows):
        yield read_qa(task, row) if task.id == "qa" else read_asr(task, row)


def read_asr(task: Task, row: Row, source: str | None = None) -> Example:
    """The clip and its text, "" where its column is empty. Raises DatasetError for a row without such a column."""
    text = text_of(first(row.columns, names.TEXT))
    if text is None and has_any(row.columns, names.CONVERSATION):
        text = spoken_turns(row.columns, row.where)[1]
    if text is None and not has_any(row.columns, names.TEXT):
        raise DatasetError(_without("text", names.TEXT, row))
    source = source or str(first(row.columns, _SOURCE) or task.id)
    prompt = first(row.columns, ("prompt",))
    own = prompt if isinstance(prompt, str) else None
    return example(task, row, Answered(source, text or "", group=speaker_of(row.columns), prompt=own))


def read_qa(task: Task, row: Row, source: str | None = None) -> Example:
    """The clip, a question and its answer; "answer" None where only a judge can decide. Raises DatasetError."""
    question, answer = first(row.columns, names.QUESTION), first(row.columns, names.ANSWER)
    if has_any(row.columns, names.CONVERSATION):
        asked, said = spoken_turns(row.columns, row.where)
        question, answer = question or asked, answer or said
    if question is None:
        raise DatasetError(_without("question", names.QUESTION, row))
    if answer is None and not has_any(row.columns, names.ANSWER):
        raise DatasetError(_without("answer", names.ANSWER, row))
    source = source or str(first(row.columns, _SOURCE) or task.id)
    choices = choices_of(row.columns)
    return example(
        task, row, Answered(source, _in_choices(text_of(answer), choices), str(question), choices, _clip(row))
    )


def _in_choices(answer: str | None, choices: tuple[str, ...]) -> str | None:
    """An answer as its choice reads where it is given as a letter, "B" or "(b)"."""
    if answer is None or not choices or answer in choices:
        return answer
    letter = answer.strip(" ().").upper()
    number = ord(letter) - ord("A") if len(letter) == 1 else -1
    return choices[number] if 0 <= number < len(choices) else answer


def _clip(row: Row) -> str:
    return row.sound.name if row.sound is not None else ""


def _without(what: str, wanted: tuple[str, ...], row: Row) -> str:
    found = ", ".join(map(str, row.columns)) or "none"
    return f"{row.where} has no {what}; expected a column {', '.join(wanted[:5])}; found {found}."
