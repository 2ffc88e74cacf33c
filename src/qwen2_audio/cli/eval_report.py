"""`qwen2-audio eval report`: the table and the page of a run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .eval_score import show_scores
from .terminal import Json, note

Folder = Annotated[Path, typer.Argument(help="A run's folder.")]
Export = Annotated[
    str | None,
    typer.Option(
        metavar="FORMAT",
        help="Also write the answers as a benchmark's own scripts read them: benchmark, each task's own; or official, "
        "official-chat, mmau, mmar, airbench, mmsu, voicebench, open-asr.",
    ),
]
OWN = "benchmark"


def command(folder: Folder, export: Export = None, json: Json = False) -> None:
    show_scores(folder, json=json)
    if export is None:
        return
    from ..evaluate.exports import export as write
    from ..evaluate.results import read_results

    results = read_results(folder)
    for task in results.tasks:
        note(f"{task.id}: {write(task, results.of(task), folder, None if export == OWN else export)}")
