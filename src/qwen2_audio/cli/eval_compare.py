"""`qwen2-audio eval compare`: two runs on their common rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from .terminal import Json, as_json

First = Annotated[Path, typer.Argument(metavar="A", help="A run's folder.")]
Second = Annotated[Path, typer.Argument(metavar="B", help="Another run's; differences are B less A.")]


def command(first: First, second: Second, json: Json = False) -> None:
    from ..evaluate.compare import compare
    from ..evaluate.report.comparison import comparison_lines
    from ..evaluate.results import read_results

    before, after = read_results(first), read_results(second)
    others = {task.id for task in after.tasks}
    common = [task for task in before.tasks if task.id in others]
    if not common:
        raise ConfigError(
            f"{first} has {', '.join(task.id for task in before.tasks)} and {second} has {', '.join(sorted(others))}; "
            "expected a task that both answer."
        )
    found = [compare(task, before.of(task), after.of(task), (before.judgements, after.judgements)) for task in common]
    if json:
        print(as_json({"first": before.identity.model, "second": after.identity.model, "tasks": found}))
        return
    for one in found:
        print("\n".join(comparison_lines(one, before.identity.model, after.identity.model)))
