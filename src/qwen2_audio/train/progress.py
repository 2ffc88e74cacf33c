"""How a run goes, on stderr: a bar for someone who watches, else a line now and then."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

SECONDS_BETWEEN_LINES = 15.0


class Display:
    """Told after each step; says it."""

    def __init__(self, unit: str, steps: int, done: int, *, quiet: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.unit, self.steps, self.started_at, self.started = unit, steps, done, time.monotonic()
        self.said = 0.0
        self.console = Console(stderr=True, quiet=quiet)
        self.bar = Progress(
            TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.fields[numbers]}"),
            TextColumn("ETA"), TimeRemainingColumn(), console=self.console, transient=True,
        )  # fmt: skip
        self.task = self.bar.add_task("", total=steps, completed=done, numbers="")

    def step(self, step: int, numbers: dict[str, Any]) -> None:
        text = f"loss {numbers['loss']:.4f}  lr {numbers['learning_rate']:.2e}  {numbers['rate']:.0f} {self.unit}/s"
        if self.console.is_terminal:
            self.bar.update(self.task, completed=step, numbers=text)
        elif time.monotonic() - self.said > SECONDS_BETWEEN_LINES or step == self.steps:
            each = (time.monotonic() - self.started) / max(1, step - self.started_at)
            self.said = time.monotonic()
            self.line(f"step {step}/{self.steps}  {text}  ETA {each * (self.steps - step):.0f} s")

    def line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def shown(unit: str, steps: int, done: int, *, quiet: bool = False) -> Iterator[Display]:
    """`quiet`: for the processes of a run that do not talk."""
    display = Display(unit, steps, done, quiet=quiet)
    if quiet or not display.console.is_terminal:
        yield display
        return
    with display.bar:
        yield display
