"""`qwen2-audio job retry`: ask the rows that failed again."""

from __future__ import annotations

from .job_run import JobPath, Quiet, Set, run
from .terminal import Json


def command(job: JobPath, set: Set = None, quiet: Quiet = False, as_json: Json = False) -> int:
    return run(job, set, {}, retry=True, quiet=quiet, as_json=as_json)
