"""The progress of a run on stderr: a bar on a terminal, else a line every 15 seconds."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

SECONDS_BETWEEN_LINES = 15.0


class Display:
    """Shows the metrics of the steps.

    unit: what a step counts, "tokens" or "pairs". steps: of the whole run. done: steps before this start of the run.
    """

    def __init__(self, unit: str, steps: int, done: int, *, quiet: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.unit, self.steps, self.first_step, self.started = unit, steps, done, time.monotonic()
        self.last_line = 0.0  # time of the last line
        self.console = Console(stderr=True, quiet=quiet)
        self.bar = Progress(
            TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.fields[numbers]}"),
            TextColumn("ETA"), TimeRemainingColumn(), console=self.console, transient=True,
        )  # fmt: skip
        self.task = self.bar.add_task("", total=steps, completed=done, numbers="")

    def step(self, step: int, values: dict[str, Any]) -> None:
        """Show `values`, with "loss", "learning_rate" and "rate", after step `step`, counted from 1."""
        text = f"loss {values['loss']:.4f}  lr {values['learning_rate']:.2e}  {values['rate']:.0f} {self.unit}/s"
        if self.console.is_terminal:
            self.bar.update(self.task, completed=step, numbers=text)
        elif time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES or step == self.steps:
            step_seconds = (time.monotonic() - self.started) / max(1, step - self.first_step)
            self.last_line = time.monotonic()
            self.line(f"step {step}/{self.steps}  {text}  ETA {step_seconds * (self.steps - step):.0f} s")

    def line(self, text: str) -> None:
        """Print a line of text."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def shown(unit: str, steps: int, done: int, *, quiet: bool = False) -> Iterator[Display]:
    """A Display, with its bar on a terminal. `quiet`: for the processes of a run that print nothing."""
    display = Display(unit, steps, done, quiet=quiet)
    if quiet or not display.console.is_terminal:
        yield display
        return
    with display.bar:
        yield display
