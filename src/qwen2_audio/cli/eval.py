"""`qwen2-audio eval`: a group of commands, each in a file of its own, imported when it is run."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .group import HELP, run_group

COMMANDS = {
    "list": "which benchmarks there are, for which checkpoint, and where to get their data",
    "check": "whether a benchmark's data is whole: rows, missing, damaged, silent and over-long clips; no model",
    "run": "ask a checkpoint or a server every row of some benchmarks, score the answers, write a report",
    "score": "score the answers of a run, or another project's file of answers, again; no model",
    "judge": "let a language model judge the answers of a run that have no single right one",
    "compare": "two runs on their common rows: differences with intervals, and the rows that flipped",
    "calibrate": "the confidence below which a checkpoint's transcripts are doubtful, found on clips with their texts",
    "report": "the tables of a run, and report.html",
}
PROGRAM = "qwen2-audio eval"
ABOUT = """How well a checkpoint hears, measured as the benchmarks' authors do.
---
Exit status 0: all done; 1: some rows failed, and are named; 2: it could not start; 3: a bar was missed, with --bars."""
OLD_NAMES = {"--tasks": "", "--count": "--limit"}  # the options of the only command there was; they go in 0.3


def run(arguments: Sequence[str]) -> int:
    """Run `qwen2-audio eval ARGUMENTS` and return its exit status."""
    if arguments and arguments[0].startswith("-") and arguments[0] not in HELP:
        arguments = ["run", *with_new_names(arguments)]
    return run_group("eval", COMMANDS, ABOUT, arguments)


def with_new_names(arguments: Sequence[str]) -> list[str]:
    """`--tasks nano --count 9` as `nano --limit 9 --bars`, with a notice on stderr."""
    tasks, rest, iterator = "", list[str](), iter(arguments)
    for argument in iterator:
        option, equals, value = argument.partition("=")
        if option not in OLD_NAMES:
            rest.append(argument)
            continue
        value = value if equals else next(iterator, "")
        if option == "--tasks":
            tasks = value
        else:
            rest += [OLD_NAMES[option], value]
    new = [*([tasks] if tasks else []), *rest, *(["--bars"] if tasks == "nano" else [])]
    print(
        f"qwen2-audio: this is now {PROGRAM} run {' '.join(new)}; --tasks and --count go in 0.3, "
        "and a missed bar exits with 3.",
        file=sys.stderr,
    )
    return new
