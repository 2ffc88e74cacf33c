"""`qwen2-audio job`: a group of commands, each in a file of its own, imported when it is run."""

from __future__ import annotations

from collections.abc import Sequence

from .group import run_group

COMMANDS = {
    "run": "ask every clip of a corpus; the same command again goes on where it stopped",
    "status": "how far a job is: done, failed, rate, time left, cost of an hour of sound",
    "retry": "ask the rows that failed again",
    "export": "a job's rows as one file: .jsonl, .parquet or .csv",
    "plan": "how many replicas a corpus needs by a deadline, from a minute's measurement on one",
}
ABOUT = """A job is a TOML file: model, input, output, and what to do with each clip (ask, transcribe, translate).
---
Exit status 0: every row is answered; 1: some failed, and are named; 2: it cannot go on; 130: interrupted."""


def run(arguments: Sequence[str]) -> int:
    """Run `qwen2-audio job ARGUMENTS` and return its exit status."""
    return run_group("job", COMMANDS, ABOUT, arguments)
