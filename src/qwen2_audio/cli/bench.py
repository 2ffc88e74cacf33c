"""`qwen2-audio bench`: how fast, next to whom."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from ..bench.report import Report


BENCHES = ("kernels", "model", "accuracy", "train", "engine", "load")
ON_DEVICE = "model --device"  # what `bench model` is with that option: another bench, though nobody need know
MODULES = {ON_DEVICE: "device"}  # the others are called as they are
PICTURES = {"engine": "engine_plot", "load": "load_plot"}  # who draws; the others a roofline
# Which benches have an option.
USED_BY = {
    "model": ("model", "accuracy", "train", "engine", "load"),
    "shape": ("model", ON_DEVICE, "accuracy", "train", "engine"),
    "format": ("model", ON_DEVICE, "engine"),
    "device": (ON_DEVICE, "engine"),
    "profile": ("model",),
    "method": ("train",),
    "isa": ("kernels",),
    "peer_python": ("kernels",),
    "peer": ("kernels", "model", ON_DEVICE, "train", "engine"),
    "repeats": ("kernels", "model", ON_DEVICE, "train", "engine"),
    "quick": ("kernels", "model", ON_DEVICE, "train", "engine"),
    "threads": ("kernels", "model", ON_DEVICE, "accuracy", "train", "engine"),
    **dict.fromkeys(("url", "api_key", "rate", "requests", "clip", "max_tokens", "seed"), ("load",)),
}

What = Annotated[
    str,
    typer.Argument(
        help="kernels: quantised matrix products; model: from load to answer; accuracy: what quantising loses; "
        "train: a step of training; engine: many requests at once; load: a server under load."
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        help="Folder of a checkpoint; without it, a random one is made and kept (accuracy: nano). "
        "load: the model's name at the server; without it, the first that it lists."
    ),
]
Shape = Annotated[str | None, typer.Option(help="Random checkpoint: mid (0.4 GB), 1b (3 GB) or full (17 GB).")]
Format = Annotated[
    str | None,
    typer.Option(
        help="model: some of fp32,int8,int4; engine: one of them, or bf16. Quantised once, and kept. "
        "model --device: bf16 (default), fp16 or fp32."
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        help="engine: cpu (default) or cuda. model: a random model is made there (the full one, unless --shape says "
        "otherwise), and decoding and first tokens are measured next to transformers there."
    ),
]
Method = Annotated[str | None, typer.Option(help="train: some of lora,full.")]
Isa = Annotated[str | None, typer.Option(help="kernels: amx, avx512, avx2, portable, or all of the fast ones.")]
Json = Annotated[Path | None, typer.Option("--json", help="Also write the rows to this file.")]
Png = Annotated[Path | None, typer.Option("--png", help="Also draw a picture to this file (needs matplotlib).")]
Repeats = Annotated[int | None, typer.Option(help="Measurements of each, interleaved with the peer's.")]
Peer = Annotated[
    str | None,
    typer.Option(
        help="kernels: onnxruntime, model, train and engine: transformers, or none; without it, if installed."
    ),
]
PeerPython = Annotated[Path | None, typer.Option(help="kernels: a Python that has onnxruntime, if this one has not.")]
Threads = Annotated[int | None, typer.Option(help="Of all sides; without it, one a physical core.")]
Quick = Annotated[bool, typer.Option("--quick", help="Less of everything: to try it out, not to quote.")]
Profile = Annotated[
    bool | None, typer.Option("--profile/--no-profile", help="model: where our own time goes (default: yes).")
]
Url = Annotated[str | None, typer.Option(help="load: where the API is (default http://127.0.0.1:8000).")]
ApiKey = Annotated[str | None, typer.Option(help="load: the server's key; also $QWEN2_AUDIO_API_KEY.")]
Rate = Annotated[float | None, typer.Option(help="load: requests a second, whether or not others are answered.")]
Requests = Annotated[int | None, typer.Option(help="load: how many (default 20).")]
Clip = Annotated[
    list[Path] | None, typer.Option(help="load: a sound file; repeatable. Without it, synthetic clips of 2 to 10 s.")
]
MaxTokens = Annotated[int | None, typer.Option(help="load: tokens of an answer at most (default 64).")]
Seed = Annotated[int | None, typer.Option(help="load: of the times of arrival and of the synthetic clips.")]


def command(
    what: What,
    model: Model = None,
    shape: Shape = None,
    format: Format = None,
    device: Device = None,
    method: Method = None,
    isa: Isa = None,
    json: Json = None,
    png: Png = None,
    repeats: Repeats = None,
    peer: Peer = None,
    peer_python: PeerPython = None,
    quick: Quick = False,
    profile: Profile = None,
    threads: Threads = None,
    url: Url = None,
    api_key: ApiKey = None,
    rate: Rate = None,
    requests: Requests = None,
    clip: Clip = None,
    max_tokens: MaxTokens = None,
    seed: Seed = None,
) -> None:
    if what not in BENCHES:
        raise ConfigError(f"There is no bench {what!r}; expected one of {', '.join(BENCHES)}.")
    options: dict[str, Any] = {
        "model": model, "shape": shape, "format": format, "profile": profile, "method": method, "isa": isa,
        "peer_python": peer_python, "repeats": repeats, "peer": peer, "threads": threads, "quick": quick or None,
        "device": device, "url": url, "api_key": api_key, "rate": rate, "requests": requests, "clip": clip or None,
        "max_tokens": max_tokens, "seed": seed,
    }  # fmt: skip
    what = ON_DEVICE if what == "model" and device is not None else what
    if what == ON_DEVICE and png is not None:
        raise ConfigError("bench model --device draws no picture; leave --png out.")
    run = prepare(what, {name: value for name, value in options.items() if value is not None})
    from rich.console import Console

    check_outputs(json, png)
    with _progress(Console(stderr=True)) as progress:
        report = run(progress)
    show(report, Console())
    if json is not None:
        json.write_text(report.to_json(), encoding="utf-8")
    if png is not None:
        import_module(f"..bench.{PICTURES.get(what, 'roofline')}", __package__).save_png(report, png)


def prepare(what: str, given: dict[str, Any]) -> Callable[[Callable[[str], None]], Report]:
    """The bench `what` with the options that were given, ready to run. Raises ConfigError: one that cannot work."""
    for name in given:
        if what not in USED_BY[name]:
            option = f"--{name.replace('_', '-')}"
            others = ", ".join(dict.fromkeys(one.removesuffix(" --device") for one in USED_BY[name]))
            raise ConfigError(f"{option} is an option of bench {others}; leave it out for bench {what}.")
    if "model" in given and "shape" in given:
        raise ConfigError("--shape is for a random checkpoint and --model names one; leave one of the two out.")
    if "shape" in given:
        from ..bench.checkpoint import SHAPES

        if given["shape"] not in SHAPES:
            raise ConfigError(f"shape is {given['shape']!r}; expected {', '.join(SHAPES)}.")
        given["shape"] = SHAPES[given["shape"]]
    for name in ("format", "method"):
        if name in given:
            given[f"{name}s"] = tuple(given.pop(name).split(","))
    if "model" in given and what != "load":
        given["model"] = Path(given["model"])
    if "clip" in given:
        given["clips"] = tuple(given.pop("clip"))
    bench = import_module(f"..bench.{MODULES.get(what, what)}", __package__)
    return partial(bench.run, bench.Options(**given))


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
    """The tables, on stdout; wide enough to be whole when nobody's terminal says how wide it is."""
    from ..bench.report import profile_table, table

    if not console.is_terminal:
        console.width = 140
    console.print(table(report))
    for form in dict.fromkeys(stage["format"] for stage in report.profile):
        console.print(profile_table(form, [stage for stage in report.profile if stage["format"] == form]))


@contextlib.contextmanager
def _progress(console: Console) -> Iterator[Callable[[str], None]]:
    """A changing line for someone who watches, plain lines otherwise."""
    if console.is_terminal:
        with console.status("starting") as status:
            yield status.update
    else:
        yield lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)
