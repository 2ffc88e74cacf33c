"""`qwen2-audio job run`: ask every clip of a corpus."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .exit_codes import INTERRUPTED
from .job_progress import JobProgress, summary_table
from .terminal import Json, note

JobPath = Annotated[Path, typer.Argument(metavar="JOB.toml", help="The job; see docs/jobs.md.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Takes the place of a key of the file; several times.", show_default=False
    ),
]
Limit = Annotated[
    int | None, typer.Option(help="The first N rows only: to try a job out, in an output of its own.", min=1)
]
Workers = Annotated[
    int | None, typer.Option(help="Processes on this machine, a GPU each; also the key workers.", min=0)
]
Shard = Annotated[
    str | None, typer.Option(metavar="I/N", help="Every N-th part, from the I-th on; also the key shard.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


def command(
    job: JobPath,
    set: Set = None,
    limit: Limit = None,
    workers: Workers = None,
    shard: Shard = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    return run(job, set, {"limit": limit, "workers": workers, "shard": shard}, quiet=quiet, as_json=as_json)


def run(
    job: Path, sets: list[str] | None, options: dict[str, Any], *, retry: bool = False, quiet: bool, as_json: bool
) -> int:
    """Run a job with a progress bar, and print how it ended. Returns the exit status."""
    from ..jobs.config import JobConfig, parse_changes
    from ..jobs.run import Job

    changes = parse_changes(sets or [])
    changes |= {name: value for name, value in options.items() if value is not None}
    config = JobConfig.of(job, changes)
    # By an exception, so that the workers end with the driver.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with JobProgress(quiet=quiet) as progress:
            summary = Job(config, retry=retry, tell=progress.tell, advance=progress.show).run()
    except KeyboardInterrupt:
        note(f"Interrupted. What is answered is in {config.output}; the same command goes on.")
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
    if as_json:
        print(json.dumps(summary.to_dict(), ensure_ascii=False))
    else:
        summary_table(summary)
    return summary.exit_status
