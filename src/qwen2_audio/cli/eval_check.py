"""`qwen2-audio eval check`: whether a benchmark's data is whole, without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .terminal import Json, as_json

Tasks = Annotated[str, typer.Argument(metavar="TASK[,TASK]|paper|instruct", help="What the data is to be used for.")]
Data = Annotated[Path, typer.Option(metavar="FILE|FOLDER", help="The benchmark's list, table or folder.")]
Language = Annotated[str | None, typer.Option("--lang", help="Of the task asr: the language that is spoken.")]
INCOMPLETE = 1


def command(tasks: Tasks, data: Data, lang: Language = None, json: Json = False) -> int:
    from rich.console import Console
    from rich.progress import Progress

    from ..evaluate.check import check
    from ..evaluate.registry.tasks import find_tasks

    reports = []
    for task in find_tasks(tasks, language=lang):
        expected = sum(rows for _, rows in task.sources) or None
        with Progress(console=Console(stderr=True), transient=True) as progress:
            bar = progress.add_task(task.id, total=expected)
            reports.append(check(task, data, advance=lambda bar=bar, progress=progress: progress.advance(bar)))  # type: ignore[misc]
        if not json:
            print("\n".join(reports[-1].lines()))
    if json:
        print(as_json([report.as_dict() for report in reports]))
    return 0 if all(report.is_complete for report in reports) else INCOMPLETE
