"""A job's progress on stderr: a bar on a terminal, else a line a minute; and the table of how it ended."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..longform.questions.wording import clock

if TYPE_CHECKING:
    from ..jobs.progress import Progress
    from ..jobs.run import JobSummary

_EVERY = 60.0  # s between two lines where there is no terminal


class JobProgress:
    """Shows the counts as long as the context lasts."""

    def __init__(self, *, quiet: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        self._console = Console(stderr=True, quiet=quiet)
        self._bar = Bar(BarColumn(), TextColumn("{task.description}"), console=self._console, transient=True)
        self._task = self._bar.add_task("starting", total=None)
        self._last = time.monotonic()

    def __enter__(self) -> JobProgress:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.pause()

    def pause(self) -> None:
        """Take the bar away, because other text follows."""
        self._bar.stop()

    def tell(self, sentence: str) -> None:
        self._console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def show(self, progress: Progress) -> None:
        """After every row."""
        if self._console.is_terminal:
            self._bar.update(self._task, total=progress.total, completed=progress.all_done, description=line(progress))
        elif time.monotonic() - self._last > _EVERY:
            self._last = time.monotonic()
            self.tell(line(progress))


def line(progress: Progress) -> str:
    """ "1,200 of 20,000 rows, 3 failed, 210 rows/s, 65 times as fast as it is, 1:29 left"."""
    rows = f"{progress.all_done:,}" + (f" of {progress.total:,}" if progress.total is not None else "")
    parts = [f"{rows} rows", f"{progress.all_failed:,} failed"]
    if progress.rate:
        parts.append(f"{progress.rate:,.1f} rows/s")
    if progress.times_real:
        parts.append(f"{progress.times_real:,.1f} times as fast as it is")
    if progress.left is not None:
        parts.append(f"{clock(progress.left)} left")
    return ", ".join(parts)


def summary_table(summary: JobSummary) -> None:
    """Print how a job ended: counts, rates, the first errors, and where everything is."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    progress = summary.progress
    table = Table(show_header=False, box=None, pad_edge=False)
    rows: list[tuple[str, Any]] = [
        ("answered", f"{progress.all_done - progress.all_failed:,}"),
        ("failed", f"{progress.all_failed:,}"),
        ("there already", f"{progress.before:,}"),
        ("sound heard", clock(progress.heard)),
        ("tokens written", f"{progress.tokens:,}"),
    ]
    if progress.rate:
        rows.append(("rate", f"{progress.rate:,.1f} rows/s"))
    if progress.times_real:
        rows.append(("", f"{progress.times_real:,.1f} times as fast as the sound is"))
    rows.append(("output", escape(str(summary.output))))
    for name, value in rows:
        table.add_row(name, value)
    console = Console(soft_wrap=True)
    console.print(table)
    for name, sentence in summary.errors:
        console.print(f"failed: {name}: {sentence}", markup=False, highlight=False)
    if progress.all_failed:
        more = "All of them are" if progress.all_failed > len(summary.errors) else "They are"
        open_ones = f", or in {summary.output / 'journal'} until their part is whole" if summary.stopped else ""
        console.print(f"{more} in {summary.output / 'errors'}{open_ones}.", markup=False, highlight=False)
    if summary.stopped:
        console.print(summary.stopped, markup=False, highlight=False)
