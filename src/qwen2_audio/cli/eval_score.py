"""`qwen2-audio eval score`: the figures of a run's answers, or of somebody else's, without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from .terminal import as_json, note

What = Annotated[
    Path,
    typer.Argument(
        metavar="FOLDER|ANSWERS.json", help="A run's folder, or a file of answers that another project wrote."
    ),
]
TaskId = Annotated[str | None, typer.Option("--task", help="Of a file: the task that it answers.", show_default=False)]
Out = Annotated[Path | None, typer.Option(help="Of a file: the folder for its scores.", show_default=False)]
Language = Annotated[
    str | None, typer.Option("--lang", help="Of a file, for the task asr: the language that is spoken.")
]
Json = Annotated[bool, typer.Option("--json", help="Print scores.json instead of the table.")]


def command(what: What, task: TaskId = None, out: Out = None, lang: Language = None, json: Json = False) -> None:
    if what.is_dir():
        if task is not None or out is not None or lang is not None:
            raise ConfigError(f"{what} is a run's folder, which knows its tasks; leave --task, --out and --lang out.")
        show_scores(what, json=json)
        return
    if not what.is_file():
        raise ConfigError(f"There is no {what}; expected a run's folder, or a file of answers.")
    if task is None or out is None:
        raise ConfigError("A file of answers needs --task, what it answers, and --out, a folder for its scores.")
    from ..evaluate.foreign import import_answers
    from ..evaluate.registry.tasks import find_task

    show_scores(import_answers(what, find_task(task, language=lang), out), json=json)


def show_scores(folder: Path, *, json: bool = False) -> None:
    """Score a folder's answers, write scores.json and report.html, and print the table."""
    from ..evaluate.report.page import write_report
    from ..evaluate.report.table import table_lines
    from ..evaluate.results import read_results, score_results

    results = read_results(folder)
    scores = score_results(results)
    path = write_report(results, scores)
    if json:
        print(as_json(scores))
    else:
        print("\n".join(table_lines(scores)))
    note(f"More in {path}.")
