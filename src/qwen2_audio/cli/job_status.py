"""`qwen2-audio job status`: how far a job is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..longform.questions.wording import clock
from .terminal import Json, as_json

if TYPE_CHECKING:
    from ..jobs.status import JobStatus

Folder = Annotated[Path, typer.Argument(metavar="OUTPUT", help="The job's output folder.")]
Price = Annotated[
    float | None, typer.Option(help="Of an hour of one machine: then an hour of sound has a cost.", min=0)
]


def command(output: Folder, price: Price = None, json: Json = False) -> int:
    from ..jobs.status import status_of

    status = status_of(output)
    cost = None if price is None else status.cost(price)
    if json:
        print(as_json(status.to_dict() | ({} if price is None else {"cost_of_an_hour_of_sound": cost})))
        return 0
    for line in lines_of(status, cost):
        print(line)
    return 0


def lines_of(status: JobStatus, cost: float | None) -> list[str]:
    """What is known, a line a thing."""
    total = "" if status.total is None else f" of {status.total:,}"
    operation = status.asked.get("operation", "?")
    lines = [
        f"{status.folder}: {operation}, {status.model}, {'running' if status.running else 'not running'}",
        f"done    {status.done:,}{total}",
        f"failed  {status.failed:,}",
    ]
    if status.rate:
        lines.append(f"rate    {status.rate:,.1f} rows/s")
    if status.times_real:
        lines.append(f"        {status.times_real:,.1f} times as fast as the sound is")
    if status.left is not None:
        lines.append(f"left    {clock(status.left)}")
    if cost is not None:
        lines.append(f"cost    {cost:.4g} for an hour of sound")
    return lines
