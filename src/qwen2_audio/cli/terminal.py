"""What the commands share on the terminal: notes, waiting, the options that choose a model, loading it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
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
MaxTokens = Annotated[int | None, typer.Option(help="New tokens at most; default the checkpoint's, else 256.")]
Temperature = Annotated[float | None, typer.Option(help="0 is greedy; default the checkpoint's.")]
TopP = Annotated[float | None, typer.Option(help="Draw from the best tokens with this much probability.")]
TopK = Annotated[int | None, typer.Option(help="Draw from this many tokens; 0 from all.")]
Seed = Annotated[int | None, typer.Option(help="The same seed, the same answer.")]
System = Annotated[str | None, typer.Option(help="What the model is told to be.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def note(text: str) -> None:
    """A line for people, on stderr."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """A spinner on stderr while something takes its time, if someone watches."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


def load_model(
    model: str | None,
    device: str = "auto",
    dtype: str = "auto",
    adapter: str | None = None,
    quantize: str | None = None,
    **more: Any,
) -> AudioChat:
    """Load what the options name (`more`: others of `load`); say on stderr which checkpoint it is, and what was chosen
    for this machine.

    Processes of torchrun share the model. All but the first run its commands, and exit here when it ends.
    """
    with waiting("Starting"):  # importing torch takes a second or two; loading has a bar of its own
        from ..api.loading import load
        from ..engine.executor.tp_worker import run_worker
    several = int(os.environ.get("WORLD_SIZE", 1)) > 1
    options = {"device": device, "dtype": dtype, "adapter": adapter, "quantize": quantize, **more}
    loaded = load(model, tensor_parallel=several, **options)
    if run_worker(loaded.model):
        raise typer.Exit
    if several:  # else SIGTERM would end this process before it told the others
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    note(loaded.about)
    for line in loaded.notes:
        note(line)
    return loaded


def is_first() -> bool:
    """Whether this process answers; of those that torchrun started only one does."""
    return int(os.environ.get("RANK", 0)) == 0


def heard_line(name: str, seconds: float, tokens: int) -> str:
    """The proof that a clip was heard."""
    return f"heard {name}: {seconds:.2f} s, {tokens} audio tokens"


def as_json(value: Any) -> str:
    """One JSON object, readable."""
    import json

    return json.dumps(value, indent=2, ensure_ascii=False)
