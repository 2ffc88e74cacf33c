"""Shared by the commands: notes on stderr, a spinner, the options that choose a model, and loading it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..api.chat import AudioChat

Model = Annotated[
    str | None,
    typer.Option(help="Folder or hub name; default $QWEN2_AUDIO_MODEL, else the bundled nano.", show_default=False),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
DType = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Quantize = Annotated[
    str | None, typer.Option(help="int8 or int4: quantise the weights while loading.", show_default=False)
]
Adapter = Annotated[str | None, typer.Option(help="Folder of a LoRA adapter to add to the model.", show_default=False)]
MaxTokens = Annotated[int | None, typer.Option(help="New tokens, at most; default the checkpoint's, else 256.")]
Temperature = Annotated[float | None, typer.Option(help="0 is greedy; default the checkpoint's.")]
TopP = Annotated[float | None, typer.Option(help="Draw from the most likely tokens with this much probability.")]
TopK = Annotated[int | None, typer.Option(help="Draw from this many most likely tokens; 0: from all.")]
Seed = Annotated[int | None, typer.Option(help="The same seed gives the same answer.")]
System = Annotated[str | None, typer.Option(help="The system prompt.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def note(text: str) -> None:
    """Print a line on stderr."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Show a spinner with `text` on stderr inside this context, if stderr is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


@contextmanager
def counting(text: str, total: int) -> Iterator[Callable[[], object]]:
    """A progress bar on stderr, if that is a terminal; the context is a function that counts one more of `total`."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(text), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(text, total=total)
        yield lambda: progress.advance(task)


def load_model(
    model: str | None,
    device: str = "auto",
    dtype: str = "auto",
    adapter: str | None = None,
    quantize: str | None = None,
    **load_options: Any,
) -> AudioChat:
    """Load a model with the command's options, and print the checkpoint's line and notes on stderr.

    Processes of torchrun share the model: all but the first run the first one's commands here, and exit when it ends.
    """
    with waiting("Starting"):  # importing torch takes 1 to 2 s; loading has a progress bar of its own
        from ..api.loading import load
        from ..engine.executor.tp_worker import run_worker
    tensor_parallel = int(os.environ.get("WORLD_SIZE", 1)) > 1
    options = {"device": device, "dtype": dtype, "adapter": adapter, "quantize": quantize, **load_options}
    loaded = load(model, tensor_parallel=tensor_parallel, **options)
    if run_worker(loaded.model):
        raise typer.Exit
    if tensor_parallel:  # exit by an exception, so that this process can stop the others first
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    note(loaded.about)
    for line in loaded.notes:
        note(line)
    return loaded


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Inside it SIGTERM raises SystemExit, so that temporary folders and other processes end with the command. Has no
    effect in other threads."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def is_first() -> bool:
    """Whether this is rank 0, the only process of torchrun that answers."""
    return int(os.environ.get("RANK", 0)) == 0


def heard_line(name: str, seconds: float, tokens: int) -> str:
    """The line that says how much of a clip the model gets."""
    return f"heard {name}: {seconds:.2f} s, {tokens} audio tokens"


def as_json(value: Any) -> str:
    """`value` as indented JSON."""
    import json

    return json.dumps(value, indent=2, ensure_ascii=False)
