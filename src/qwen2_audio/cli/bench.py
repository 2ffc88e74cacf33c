"""`qwen2-audio bench`: how fast a server is under load, or a checkpoint on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigError, did_you_mean
from .exit_codes import INTERRUPTED
from .terminal import load_model, note

MOVED = ("kernels", "model", "engine", "train", "accuracy")  # to benchmarks/, which is in the repository only
REPOSITORY = Path(__file__).parents[3]  # where the package was not copied out of it by an installation
OPTIONS_OF = {
    "load": ("model", "png", "url", "api_key", "rate", "requests", "clip", "max_tokens", "seed"),
    "throughput": ("model", "device", "dtype", "quantize", "adapter", "requests", "max_tokens", "repeats"),
}

What = Annotated[str, typer.Argument(help="load: a server under load. throughput: one checkpoint on this machine.")]
Model = Annotated[
    str | None,
    typer.Option(
        help="load: the model's name at the server; without it, the first that it lists. throughput: folder or hub "
        "name; default $QWEN2_AUDIO_MODEL, else the bundled nano.",
        show_default=False,
    ),
]
Json = Annotated[Path | None, typer.Option("--json", help="Also write the rows to this file.")]
Requests = Annotated[
    int | None, typer.Option(help="load: how many requests (default 20). throughput: of the batch (default 16).")
]
MaxTokens = Annotated[
    int | None, typer.Option(help="Tokens of an answer: load: at most; throughput: exactly (default 64).")
]
Png = Annotated[Path | None, typer.Option("--png", help="load: also draw a picture to this file (needs matplotlib).")]
Url = Annotated[str | None, typer.Option(help="load: where the API is (default http://127.0.0.1:8000).")]
ApiKey = Annotated[str | None, typer.Option(help="load: the server's key; also $QWEN2_AUDIO_API_KEY.")]
Rate = Annotated[
    float | None, typer.Option(help="load: requests a second, whether or not others are answered (default 1).")
]
Clip = Annotated[
    list[Path] | None, typer.Option(help="load: a sound file; repeatable. Without it, synthetic clips of 2 to 10 s.")
]
Seed = Annotated[int | None, typer.Option(help="load: of the times of arrival and of the synthetic clips (default 0).")]
Device = Annotated[str | None, typer.Option(help="throughput: auto (default), cpu, cuda, cuda:1, ...")]
DType = Annotated[str | None, typer.Option(help="throughput: auto (default), float32, bfloat16 or float16.")]
Quantize = Annotated[
    str | None, typer.Option(help="throughput: int8 or int4: quantise the weights while loading.", show_default=False)
]
Adapter = Annotated[
    str | None, typer.Option(help="throughput: folder of a LoRA adapter to add to the model.", show_default=False)
]
Repeats = Annotated[int | None, typer.Option(help="throughput: measurements of each (default 3).")]


def command(
    what: What,
    model: Model = None,
    json: Json = None,
    requests: Requests = None,
    max_tokens: MaxTokens = None,
    png: Png = None,
    url: Url = None,
    api_key: ApiKey = None,
    rate: Rate = None,
    clip: Clip = None,
    seed: Seed = None,
    device: Device = None,
    dtype: DType = None,
    quantize: Quantize = None,
    adapter: Adapter = None,
    repeats: Repeats = None,
) -> None:
    if what in MOVED:
        raise ConfigError(moved_sentence(what))
    if what not in OPTIONS_OF:
        near = did_you_mean(what, list(OPTIONS_OF))
        raise ConfigError(f"There is no bench {what!r}; expected one of {', '.join(OPTIONS_OF)}.{near}")
    options: dict[str, Any] = {
        "model": model, "requests": requests, "max_tokens": max_tokens, "png": png, "url": url, "api_key": api_key,
        "rate": rate, "clip": clip or None, "seed": seed, "device": device, "dtype": dtype, "quantize": quantize,
        "adapter": adapter, "repeats": repeats,
    }  # fmt: skip
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in OPTIONS_OF[what]:
            option = f"--{name.replace('_', '-')}"
            (other,) = (bench for bench in OPTIONS_OF if bench != what)
            raise ConfigError(f"{option} is an option of bench {other}; leave it out for bench {what}.")
    (_load if what == "load" else _throughput)(given, json)


def _load(given: dict[str, Any], json: Path | None) -> None:
    from ..bench import load, load_plot
    from ..bench.output import run_and_write

    png = given.pop("png", None)
    clips = tuple(given.pop("clip", ()))
    run_and_write(partial(load.run, load.Options(**given, clips=clips)), json, png, load_plot.save_png)


def _throughput(given: dict[str, Any], json: Path | None) -> None:
    from ..bench import throughput
    from ..bench.output import check_outputs, run_and_write

    names = ("requests", "max_tokens", "repeats")
    options = throughput.Options(**{name: given.pop(name) for name in names if name in given})
    check_outputs(json, None)  # before a checkpoint is loaded, or fetched
    chat = load_model(given.pop("model", None), **given)
    run_and_write(partial(throughput.run, options, chat), json)


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
    try:
        return subprocess.call([sys.executable, "-m", "benchmarks", *arguments], env={**os.environ, "PYTHONPATH": path})
    except KeyboardInterrupt:  # it was interrupted, too
        return INTERRUPTED


def moved_sentence(name: str) -> str:
    """Where a benchmark went that was a bench of this command before."""
    return (
        f"bench {name} is no part of the installed package any more; run python -m benchmarks {name} "
        "in a clone of the repository."
    )
