"""`qwen2-audio bench`: how a server does under load."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError, did_you_mean
from .terminal import note

BENCHES = ("load",)
MOVED = ("kernels", "model", "engine", "train", "accuracy")  # to benchmarks/, which is in the repository only
REPOSITORY = Path(__file__).parents[3]  # where the package was not copied out of it by an installation

What = Annotated[str, typer.Argument(help="load: a server under load.")]
Model = Annotated[str | None, typer.Option(help="The model's name at the server; without it, the first that it lists.")]
Json = Annotated[Path | None, typer.Option("--json", help="Also write the rows to this file.")]
Png = Annotated[Path | None, typer.Option("--png", help="Also draw a picture to this file (needs matplotlib).")]
Url = Annotated[str, typer.Option(help="Where the API is.")]
ApiKey = Annotated[str | None, typer.Option(help="The server's key; also $QWEN2_AUDIO_API_KEY.")]
Rate = Annotated[float, typer.Option(help="Requests a second, whether or not others are answered.")]
Requests = Annotated[int, typer.Option(help="How many requests.")]
Clip = Annotated[
    list[Path] | None, typer.Option(help="A sound file; repeatable. Without it, synthetic clips of 2 to 10 s.")
]
MaxTokens = Annotated[int, typer.Option(help="Tokens of an answer at most.")]
Seed = Annotated[int, typer.Option(help="Of the times of arrival and of the synthetic clips.")]


def command(
    what: What,
    model: Model = None,
    json: Json = None,
    png: Png = None,
    url: Url = "http://127.0.0.1:8000",
    api_key: ApiKey = None,
    rate: Rate = 1.0,
    requests: Requests = 20,
    clip: Clip = None,
    max_tokens: MaxTokens = 64,
    seed: Seed = 0,
) -> None:
    if what in MOVED:
        raise ConfigError(moved_sentence(what))
    if what not in BENCHES:
        near = did_you_mean(what, list(BENCHES))
        raise ConfigError(f"There is no bench {what!r}; expected one of {', '.join(BENCHES)}.{near}")
    from ..bench import load, load_plot
    from ..bench.output import run_and_write

    options = load.Options(url, model, api_key, rate, requests, tuple(clip or ()), max_tokens, seed)
    run_and_write(partial(load.run, options), json, png, load_plot.save_png)


def run_moved(arguments: list[str]) -> int | None:
    """Run a benchmark that was a bench of this command before, where the repository is at hand; its exit status.

    None where `arguments` name no such benchmark, or there is only the installed package.
    """
    if not arguments or arguments[0] not in MOVED or not (REPOSITORY / "benchmarks" / "__main__.py").is_file():
        return None
    note(
        f"qwen2-audio: bench {arguments[0]} is called python -m benchmarks {arguments[0]} now, "
        "and this name goes with the next version."
    )
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    return subprocess.call([sys.executable, "-m", "benchmarks", *arguments], env={**os.environ, "PYTHONPATH": path})


def moved_sentence(name: str) -> str:
    """Where a benchmark went that was a bench of this command before."""
    return (
        f"bench {name} is no part of the installed package any more; run python -m benchmarks {name} "
        "in a clone of the repository."
    )
