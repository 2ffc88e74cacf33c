"""Rows that failed, to be asked again: their parts are open once more, with their answers in the journal."""

from __future__ import annotations

from ..datasets.line_log import json_line, replace_file
from ..errors import JobError
from .folder import JobFolder
from .formats import read_rows
from .records import result_of


def reopen(folder: JobFolder, rows_per_part: int, shard: tuple[int, int]) -> int:
    """Open the parts of a shard that have errors. Returns how many rows are to be asked again.

    A kill at any moment loses nothing: the journal is whole before the part goes.
    """
    count = 0
    for number in sorted(folder.done()):
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
