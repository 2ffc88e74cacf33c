"""`qwen2-audio eval`: how well a checkpoint hears."""

from __future__ import annotations

import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigError, did_you_mean
from .terminal import Model

TASKS = ("nano",)
MISSED = 1
Tasks = Annotated[str, typer.Option(help="What to test, separated by commas; so far: nano, the bundled model's world.")]
Before = Annotated[str | None, typer.Option(help="Another checkpoint for a second column, say before DPO.")]
Count = Annotated[int, typer.Option(help="Questions a row.", min=1)]
Out = Annotated[Path, typer.Option(help="Folder of report.json, with every wrong answer, and of confusion.png.")]


def command(
    tasks: Tasks,
    model: Model = None,
    before: Before = None,
    count: Count = 300,
    out: Out = Path("runs/eval"),
) -> int:
    for task in tasks.split(","):
        if task not in TASKS:
            known = f"There is no task {task!r}.{did_you_mean(task, list(TASKS))}"
            raise ConfigError(f"{known} Tasks: {', '.join(TASKS)}.")
    from ..api.loading import find

    folders = [Path(find(name)) for name in (model, *([before] if before else []))]
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is no folder; the nano task tests a checkpoint's folder.")
    test = recipe("evaluate")
    started = time.monotonic()
    try:
        tally, *others = test.evaluate(folders, count)
    except RuntimeError as error:  # a synthesiser is missing, and the sentence says which
        raise ConfigError(str(error)) from error
    met = test.report(tally, others[0] if others else None, out, time.monotonic() - started)
    return 0 if met else MISSED


def recipe(module: str) -> Any:
    """A module of recipes/nano, which makes nano's clips and is no part of the package.

    Raises ConfigError where the package was installed without the repository.
    """
    root = Path(__file__).parents[3]
    if not (root / "recipes" / "nano" / f"{module}.py").is_file():
        raise ConfigError(
            "The nano task makes its clips with recipes/nano, which is in the repository and not in the package; "
            "run this from a clone that was installed with 'pip install -e .'."
        )
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return import_module(f"recipes.nano.{module}")
