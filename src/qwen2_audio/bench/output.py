"""What a benchmark command writes: tables on stdout, progress on stderr, the rows as JSON, a picture."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from .report import Report

PIPED_WIDTH = 140  # characters of a line, so that a table is whole where no terminal says how wide it is


@dataclass(frozen=True)
class Progress:
    """What a benchmark says while it runs: lines for people, by a call, and to `keep` what it has so far."""

    tell: Callable[[str], None] = lambda line: None
    keep: Callable[[Report], None] = lambda report: None

    def __call__(self, line: str) -> None:
        self.tell(line)


SILENT = Progress()


def run_and_write(
    run: Callable[[Progress], Report],
    json: Path | None,
    png: Path | None = None,
    save_png: Callable[[Report, Path], None] | None = None,
) -> None:
    """Run a benchmark, which is given a Progress, and write what came out. What it keeps on its way is in the file
    already, and its last row on the standard error: hours are not lost where it is stopped.

    Raises ConfigError before the benchmark begins where a file cannot be written.
    """
    from rich.console import Console

    from .report import line_of

    check_outputs(json, png)
    console = Console(stderr=True)

    def keep(report: Report) -> None:
        console.print(line_of(report.rows[-1]), markup=False, highlight=False, soft_wrap=True)
        if json is not None:
            json.write_text(report.to_json(), encoding="utf-8")

    with progress_lines(console) as tell:
        report = run(Progress(tell, keep))
    show(report, Console())
    if json is not None:
        json.write_text(report.to_json(), encoding="utf-8")
    if png is not None and save_png is not None:
        save_png(report, png)


def check_outputs(json: Path | None, png: Path | None) -> None:
    """Make the folders of the files to write; refuse before minutes of work, not after. Raises ConfigError."""
    from importlib.util import find_spec

    for path in (json, png):
        if path is None:
            continue
        with contextlib.suppress(OSError):
            path.absolute().parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise ConfigError(f"Cannot write {path}: expected the name of a file, in a folder that can be written to.")
    if png is not None and find_spec("matplotlib") is None:
        raise ConfigError("--png needs matplotlib; install 'qwen2-audio[plot]' or leave --png out.")


def show(report: Report, console: Console) -> None:
    """Print the tables; lines are PIPED_WIDTH wide where the console is no terminal."""
    from .report import profile_table, table

    if not console.is_terminal:
        console.width = PIPED_WIDTH
    console.print(table(report))
    for format_name in dict.fromkeys(stage["format"] for stage in report.profile):
        stages = [stage for stage in report.profile if stage["format"] == format_name]
        console.print(profile_table(format_name, stages))


@contextlib.contextmanager
def progress_lines(console: Console) -> Iterator[Callable[[str], None]]:
    """A function to report progress to: a line that changes where `console` is a terminal, plain lines otherwise."""
    if console.is_terminal:
        with console.status("starting") as status:
            yield status.update
    else:
        yield lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)
