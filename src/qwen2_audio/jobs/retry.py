"""Rows that failed, to be asked again: their parts are open, with their answers and without errors in the journal."""

from __future__ import annotations

from ..datasets.line_log import LineLog, json_line, parse_lines, replace_file
from ..errors import JobError
from .folder import JobFolder, outcome_of
from .formats import read_rows
from .records import result_of


def reopen(folder: JobFolder, rows_per_part: int, shard: tuple[int, int]) -> int:
    """Open the parts of a shard that have errors, and drop the errors of those that are open. Returns how many rows are
    to be asked again.

    A kill at any moment loses nothing: the journal is whole before the part goes.
    """
    done = folder.done()
    count = sum(
        _without_errors(folder, number) for number in folder.journals() - done if number % shard[1] == shard[0] - 1
    )
    for number in sorted(done):
        errors, part = folder.errors(number), folder.part(number)
        if number % shard[1] != shard[0] - 1 or not errors.exists():
            continue
        failed = {int(row["row"]) for row in read_rows(errors)}
        answers = list(read_rows(part))
        first = number * rows_per_part
        numbers = [n for n in range(first, first + len(answers) + len(failed)) if n not in failed]
        if len(numbers) != len(answers):
            raise JobError(f"{errors} and {part} do not go together; take both out, and their rows are asked again.")
        lines = [
            json_line({"number": n, "result": result_of(row, folder.kinds)})
            for n, row in zip(numbers, answers, strict=True)
        ]
        replace_file(folder.journal(number), b"".join(lines), "nothing was changed", JobError)
        part.unlink()
        errors.unlink()
        count += len(failed)
    return count


def _without_errors(folder: JobFolder, number: int) -> int:
    """Take the errors out of the journal of a part that is not whole. Returns how many there were."""
    path = folder.journal(number)
    log = LineLog(path, JobError)  # held while it is replaced, so that no other run writes into it
    try:
        lines = [line for line in log.lines.splitlines(keepends=True) if line.strip()]
        outcomes = list(parse_lines(log.lines, path, outcome_of, "outcome", JobError))
        kept = [line for line, outcome in zip(lines, outcomes, strict=True) if outcome.result is not None]
        if len(kept) < len(lines):
            replace_file(path, b"".join(kept), "nothing was changed", JobError)
    finally:
        log.close()
    return len(lines) - len(kept)
