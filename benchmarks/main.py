"""`python -m benchmarks`: how fast, next to whom."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from qwen2_audio.bench.output import Progress, run_and_write
from qwen2_audio.bench.report import Report
from qwen2_audio.cli.main import run_function
from qwen2_audio.errors import ConfigError

ON_DEVICE = "model --device"  # what `model` is with that option: another benchmark, though nobody need know
MODULES = {
    "kernels": "kernels.run",
    "model": "model.run",
    ON_DEVICE: "model.device_run",
    "accuracy": "accuracy",
    "train": "train.run",
    "engine": "engine.run",
    "long": "long.run",
    "structured": "structured.run",
    "jobs": "jobs.run",
    "ray": "jobs.ray_rows",
}
BENCHES = tuple(name for name in MODULES if name != ON_DEVICE)
PICTURES = {"kernels": "harness.roofline", "model": "harness.roofline", "engine": "engine.plot"}  # who draws one
# Which benches have an option.
USED_BY = {
    "model": ("model", "accuracy", "train", "engine", "structured"),
    "shape": ("model", ON_DEVICE, "accuracy", "train", "engine"),
    "format": ("model", ON_DEVICE, "engine"),
    "device": (ON_DEVICE, "engine"),
    "profile": ("model",),
    "method": ("train",),
    "rows": ("long", "structured"),
    "isa": ("kernels",),
    "peer_python": ("kernels",),
    "peer": ("kernels", "model", ON_DEVICE, "train", "engine"),
    "repeats": ("kernels", "model", ON_DEVICE, "train", "engine", "structured"),
    "quick": ("kernels", "model", ON_DEVICE, "train", "engine", "long", "structured", "jobs", "ray"),
    "threads": ("kernels", "model", ON_DEVICE, "accuracy", "train", "engine", "long", "structured", "jobs", "ray"),
}

What = Annotated[
    str,
    typer.Argument(
        help="kernels: quantised matrix products; model: from load to answer; accuracy: what quantising loses; "
        "train: a step of training; engine: many requests at once; long: an hour of speech against its utterances; "
        "structured: answers held to schemas and grammars; jobs: a corpus of short clips, and kills; "
        "ray: a job on a cluster."
    ),
]
Model = Annotated[
    str | None,
    typer.Option(help="Folder of a checkpoint; without it, a random one is made and kept (accuracy: nano)."),
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
Rows = Annotated[str | None, typer.Option(help="long, structured: some of its rows, such as speedup,wer_excess.")]
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


def command(
    what: What,
    model: Model = None,
    shape: Shape = None,
    format: Format = None,
    device: Device = None,
    method: Method = None,
    rows: Rows = None,
    isa: Isa = None,
    json: Json = None,
    png: Png = None,
    repeats: Repeats = None,
    peer: Peer = None,
    peer_python: PeerPython = None,
    quick: Quick = False,
    profile: Profile = None,
    threads: Threads = None,
) -> None:
    if what not in BENCHES:
        raise ConfigError(f"There is no bench {what!r}; expected one of {', '.join(BENCHES)}.")
    options: dict[str, Any] = {
        "model": model, "shape": shape, "format": format, "profile": profile, "method": method, "isa": isa,
        "peer_python": peer_python, "repeats": repeats, "peer": peer, "threads": threads, "quick": quick or None,
        "device": device, "rows": rows,
    }  # fmt: skip
    what = ON_DEVICE if what == "model" and device is not None else what
    if png is not None and what not in PICTURES:
        raise ConfigError(f"bench {what} draws no picture; leave --png out.")
    run = prepare(what, {name: value for name, value in options.items() if value is not None})
    run_and_write(run, json, png, partial(_draw, what))


def _draw(what: str, report: Report, path: Path) -> None:
    import_module(f"benchmarks.{PICTURES[what]}").save_png(report, path)


def prepare(what: str, given: dict[str, Any]) -> Callable[[Progress], Report]:
    """The benchmark `what`, ready to run with the options that were given. Raises ConfigError: one cannot work."""
    for name in given:
        if what not in USED_BY[name]:
            option = f"--{name.replace('_', '-')}"
            others = ", ".join(dict.fromkeys(bench.removesuffix(" --device") for bench in USED_BY[name]))
            raise ConfigError(f"{option} is an option of bench {others}; leave it out for bench {what}.")
    if "model" in given and "shape" in given:
        raise ConfigError("--shape is for a random checkpoint and --model names one; leave one of the two out.")
    if "shape" in given:
        from qwen2_audio.evaluate.random_checkpoint import SHAPES

        if given["shape"] not in SHAPES:
            raise ConfigError(f"shape is {given['shape']!r}; expected {', '.join(SHAPES)}.")
        given["shape"] = SHAPES[given["shape"]]
    for name in ("format", "method"):
        if name in given:
            given[f"{name}s"] = tuple(given.pop(name).split(","))
    if "rows" in given:
        given["rows"] = tuple(given["rows"].split(","))
    if "model" in given:
        given["model"] = Path(given["model"])
    module = import_module(f"benchmarks.{MODULES[what]}")
    return partial(module.run, module.Options(**given))


def main() -> None:
    """Run the command line of this process and exit with its status."""
    text = "How fast this package is, next to other implementations and to what the machine can do."
    sys.exit(run_function(command, sys.argv[1:], "python -m benchmarks", text))
