"""`qwen2-audio job export`: a job's rows as one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .exit_codes import SOME_FAILED
from .job_status import Folder
from .terminal import note

To = Annotated[Path, typer.Argument(metavar="FILE", help="Ends in .jsonl, .parquet or .csv.")]
Errors = Annotated[bool, typer.Option("--errors", help="The rows that failed, instead of the answers.")]


def command(output: Folder, to: To, errors: Errors = False) -> int:
    from ..jobs.export import export
    from ..jobs.status import status_of

    count = export(output, to, errors=errors)
    print(f"{to}: {count:,} rows")
    status = status_of(output)
    missing = status.failed if errors else status.done
    if missing != count or status.total is None or status.total > status.done + status.failed:
        note("The job is not finished: rows of parts that are not whole yet are left out.")
        return SOME_FAILED
    return 0
