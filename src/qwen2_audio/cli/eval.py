"""`qwen2-audio eval`: how well a checkpoint hears."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError, did_you_mean
from .terminal import Model, note

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
    from ..evaluate.nano.examination import examine
    from ..evaluate.nano.report import write_report

    started = time.monotonic()
    tally, *others = examine(folders, count)
    seconds = time.monotonic() - started
    report = write_report(tally, others[0] if others else None, out)
    for line in report.lines():
        print(line)
    print(f"{seconds:.0f} s")
    if report.plot is None:
        note("confusion.png is not drawn, as matplotlib is not installed: pip install 'qwen2-audio[plot]'.")
    return 0 if report.met else MISSED
