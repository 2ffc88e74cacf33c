"""`qwen2-audio eval list`: the benchmarks, and what is published of them."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import ConfigError
from .terminal import Json, as_json

Names = Annotated[
    str | None, typer.Argument(metavar="[TASK[,TASK]|paper|instruct]", help="Only these, with more of each.")
]


def command(tasks: Names = None, json: Json = False) -> None:
    from ..evaluate.registry.tasks import GROUPS, TASKS, find_tasks
    from ..evaluate.report.lists import as_object, long_lines, short_lines

    found = tuple(TASKS.values()) if tasks is None else find_tasks(tasks)
    if not found:
        raise ConfigError(f"No task in {tasks!r}.")
    if json:
        print(as_json([as_object(task) for task in found]))
        return
    print("\n".join(short_lines(found) if tasks is None else [line for task in found for line in long_lines(task)]))
    if tasks is None:
        print(f"\nGroups: {', '.join(GROUPS)}. More of a task: qwen2-audio eval list TASK.")
