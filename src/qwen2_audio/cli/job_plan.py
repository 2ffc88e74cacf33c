"""`qwen2-audio job plan`: how many replicas a corpus needs by a deadline."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from .job_run import JobPath, Set
from .terminal import Json, as_json, note, waiting

Hours = Annotated[float, typer.Option(help="Of sound in the whole corpus.")]
Deadline = Annotated[float, typer.Option(help="Hours from the start until all is answered.")]
Seconds = Annotated[float, typer.Option(help="How long one replica is measured, on the job's first rows.", min=1)]
Price = Annotated[float | None, typer.Option(help="Of an hour of a replica.", min=0)]


def command(
    job: JobPath,
    hours: Hours,
    deadline: Deadline,
    seconds: Seconds = 60.0,
    price: Price = None,
    set: Set = None,
    json: Json = False,
) -> int:
    from ..jobs.config import JobConfig, parse_changes
    from ..jobs.plan import ASSUMPTIONS, measure, plan

    config = JobConfig.of(job, parse_changes(set or []))
    with waiting(f"Measuring for {seconds:.0f} s"):
        measured = measure(config, seconds)
    made = plan(measured, hours, deadline, price)
    if json:
        print(as_json({"measured": asdict(measured), "plan": asdict(made), "assumptions": ASSUMPTIONS}))
        return 0
    print(
        f"One replica here: {measured.rows:,} rows in {measured.seconds:.1f} s, {measured.rows_per_second:.1f} rows/s, "
        f"{measured.times_real:.1f} times as fast as the sound is; the model loads in {measured.load_seconds:.1f} s."
    )
    needed = f"{made.replicas:,} replicas, {made.replica_hours:,.1f} hours of them together"
    print(f"{hours:,g} h of sound in {deadline:,g} h: {needed}.")
    if made.cost is not None:
        print(f"Cost {made.cost:,.2f}, {made.cost / hours:.4g} for an hour of sound.")
    for sentence in ASSUMPTIONS:
        note(f"Assumed: {sentence}")
    return 0
