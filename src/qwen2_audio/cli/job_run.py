"""`qwen2-audio job run`: ask every clip of a corpus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .exit_codes import INTERRUPTED
from .job_progress import JobProgress, summary_table
from .terminal import Json, exit_on_sigterm, note

if TYPE_CHECKING:
    from ..jobs.runner import Runner

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
Ray = Annotated[
    str | None,
    typer.Option(
        help="Workers on a Ray cluster: its address, or auto: the one here, else a new one.", show_default=False
    ),
]
Cpus = Annotated[float, typer.Option(help="With --ray: cores for each worker.", min=0)]
Gpus = Annotated[float, typer.Option(help="With --ray: GPUs for each worker.", min=0)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


def command(
    job: JobPath,
    set: Set = None,
    limit: Limit = None,
    workers: Workers = None,
    shard: Shard = None,
    ray: Ray = None,
    cpus_per_worker: Cpus = 1.0,
    gpus_per_worker: Gpus = 0.0,
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    options = {"limit": limit, "workers": workers, "shard": shard}
    runner = None if ray is None else _on_ray(ray, cpus_per_worker, gpus_per_worker)
    return run(job, set, options, runner=runner, quiet=quiet, as_json=as_json)


def _on_ray(address: str, cpus: float, gpus: float) -> Runner:
    from ..jobs.ray_runner import OnRay

    return OnRay(address, cpus, gpus)


def run(
    job: Path,
    sets: list[str] | None,
    options: dict[str, Any],
    *,
    runner: Runner | None = None,
    retry: bool = False,
    quiet: bool,
    as_json: bool,
) -> int:
    """Run a job with a progress bar, and print how it ended. Returns the exit status."""
    from ..jobs.config import JobConfig, parse_changes
    from ..jobs.run import Job

    changes = parse_changes(sets or [])
    changes |= {name: value for name, value in options.items() if value is not None}
    config = JobConfig.of(job, changes)
    try:
        with exit_on_sigterm(), JobProgress(quiet=quiet) as progress:
            summary = Job(config, runner, retry=retry, tell=progress.tell, advance=progress.show).run()
    except KeyboardInterrupt:
        note(f"Interrupted. What is answered is in {config.output}; the same command goes on.")
        return INTERRUPTED
    if as_json:
        print(json.dumps(summary.to_dict(), ensure_ascii=False))
    else:
        summary_table(summary)
    return summary.exit_status
