"""`qwen2-audio eval check`: whether a benchmark's data is whole, without a model."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import DatasetError
from .terminal import Json, as_json, note

if TYPE_CHECKING:
    from ..evaluate.check import CheckReport

Tasks = Annotated[str, typer.Argument(metavar="TASK[,TASK]|paper|instruct", help="What the data is to be used for.")]
Data = Annotated[Path, typer.Option(metavar="FILE|FOLDER", help="The benchmark's list, table or folder.")]
Language = Annotated[str | None, typer.Option("--lang", help="Of the task asr: the language that is spoken.")]
INCOMPLETE = 1


def command(tasks: Tasks, data: Data, lang: Language = None, json: Json = False) -> int:
    from rich.console import Console
    from rich.progress import Progress

    from ..evaluate.check import check
    from ..evaluate.registry.tasks import find_tasks

    found = find_tasks(tasks, language=lang)
    reports: list[CheckReport] = []
    for task in found:
        with Progress(console=Console(stderr=True), transient=True) as progress:
            bar = progress.add_task(task.id, total=sum(rows for _, rows in task.sources) or None)
            try:
                reports.append(check(task, data, advance=partial(progress.advance, bar)))
            except DatasetError as error:
                if len(found) == 1:
                    raise
                note(f"{task.id} is left out: {error}")
                continue
        if not json:
            print("\n".join(reports[-1].lines()))
    if json:
        print(as_json([report.as_dict() for report in reports]))
    if not reports:
        raise DatasetError(f"{data} holds no data of any of these {len(found)} tasks.")
    return 0 if len(reports) == len(found) and all(report.is_complete for report in reports) else INCOMPLETE
