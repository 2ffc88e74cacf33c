"""`qwen2-audio eval report`: the table and the page of a run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .eval_score import show_scores
from .terminal import Json

Folder = Annotated[Path, typer.Argument(help="A run's folder.")]


def command(folder: Folder, json: Json = False) -> None:
    show_scores(folder, json=json)
