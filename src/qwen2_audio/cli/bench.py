"""`qwen2-audio bench`: how fast, next to whom."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from ..bench.report import Report


BENCHES = ("model",)

What = Annotated[str, typer.Argument(help="model: load, log-mel, encoder, first token, decode, memory, in fp32.")]
Model = Annotated[
    Path | None,
    typer.Option(help="Folder of a checkpoint; without it, a random one of 1.5 B parameters is made (3 GB, kept)."),
]
Json = Annotated[Path | None, typer.Option("--json", help="Also write the rows to this file.")]
Png = Annotated[Path | None, typer.Option("--png", help="Also draw the ratios to this file (needs matplotlib).")]
Repeats = Annotated[int, typer.Option(help="Measurements of each, interleaved with the peer's.")]
Peer = Annotated[str | None, typer.Option(help="transformers or none; without it, transformers if installed.")]
Threads = Annotated[int | None, typer.Option(help="Of both sides; without it, one a physical core.")]
Quick = Annotated[bool, typer.Option("--quick", help="Clips of 1 and 3 s only, few repeats.")]
Profile = Annotated[bool, typer.Option("--profile", help="Also show where our own time goes.")]


def command(
    what: What,
    model: Model = None,
    json: Json = None,
    repeats: Repeats = 5,
    peer: Peer = None,
    quick: Quick = False,
    profile: Profile = False,
    png: Png = None,
    threads: Threads = None,
) -> None:
    if what not in BENCHES:
        raise ConfigError(f"There is no bench {what!r}; expected {' or '.join(map(repr, BENCHES))}.")
    from rich.console import Console

    from ..bench.model import Options, run

    check_outputs(json, png)
    options = Options(model=model, peer=peer, repeats=repeats, quick=quick, profile=profile, threads=threads)
    with _progress(Console(stderr=True)) as progress:
        report = run(options, progress)
    show(report, Console())
    if json is not None:
        json.write_text(report.to_json(), encoding="utf-8")
    if png is not None:
        from ..bench.report import save_png

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
    """The tables, on stdout; wide enough to be whole when nobody's terminal says how wide it is."""
    from ..bench.report import profile_table, table

    if not console.is_terminal:
        console.width = 110
    console.print(table(report))
    if report.profile:
        console.print(profile_table(report))


@contextlib.contextmanager
def _progress(console: Console) -> Iterator[Callable[[str], None]]:
    """A changing line for someone who watches, plain lines otherwise."""
    if console.is_terminal:
        with console.status("starting") as status:
            yield status.update
    else:
        yield lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)
