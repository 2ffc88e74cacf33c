"""`bench model`: both sides on the same checkpoint and clips, taking turns, one computing at a time."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..config import CONFIG_FILE
from ..errors import CapacityError, ConfigError
from . import machine
from .channel import Worker
from .checkpoint import Shape, ensure, num_parameters
from .report import Report, Row

PEERS = ("transformers", "none")
_FLOAT = 4  # bytes: both sides compute in fp32
_SAME = 1e-4  # of the largest value; what two right outputs may differ by

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How to measure."""

    model: Path | None = None  # a checkpoint's folder; None: the random one of `shape`
    shape: Shape = field(default_factory=Shape)
    peer: str | None = None  # "transformers" or "none"; None: transformers if it is installed
    repeats: int = 5  # of each; at most 3 of what takes long, at least 9 of log-mel
    quick: bool = False  # clips of 1 and 3 s only, few repeats
    profile: bool = False  # also time our stages
    threads: int | None = None  # of both sides; None: one a physical core

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise ConfigError(f"repeats is {self.repeats}; expected at least 1.")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads is {self.threads}; expected at least 1.")
        if self.peer is not None and self.peer not in PEERS:
            raise ConfigError(f"peer is {self.peer!r}; expected one of {', '.join(PEERS)}.")
        if self.model is not None and not (self.model / CONFIG_FILE).is_file():
            raise ConfigError(f"{self.model} has no {CONFIG_FILE}; expected the folder of a Qwen2-Audio checkpoint.")


@dataclass(frozen=True)
class Measurement:
    """One line of the table."""

    name: str
    op: str  # what the workers are asked
    arguments: dict[str, Any]
    repeats: int
    unit: str = "s"
    limit: float | None = None  # ratio expected at least

    @property
    def more_is_better(self) -> bool:
        return self.unit == "tokens/s"


def plan(options: Options) -> list[Measurement]:
    """What the loaded sides are asked, in order. The limits come from the arithmetic of computing valid frames only."""
    short = min(options.repeats, 2) if options.quick else options.repeats
    long = min(short, 3)
    fast = short if options.quick else max(short, 9)
    new_tokens = 9 if options.quick else 33
    lines = [
        Measurement("log-mel, 3 s clip", "log_mel", {"seconds": 3}, fast, limit=3.0),
        Measurement("log-mel, 30 s clip", "log_mel", {"seconds": 30}, fast),
        Measurement("encoder, 3 s clip", "encode", {"seconds": 3}, short, limit=7.0),
        Measurement("first token, 1 s clip", "first_token", {"seconds": 1}, short, limit=3.0),
        Measurement("first token, 3 s clip", "first_token", {"seconds": 3}, short, limit=2.0),
    ]
    if not options.quick:
        lines += [
            Measurement("first token, 10 s clip", "first_token", {"seconds": 10}, long, limit=1.0),
            Measurement("first token, 30 s clip", "first_token", {"seconds": 30}, long, limit=1.0),
        ]
    decode = {"seconds": 3, "new_tokens": new_tokens}
    lines.append(Measurement("decode after a 3 s clip", "decode", decode, short, "tokens/s", limit=1.0))
    return lines


def run(options: Options, progress: Progress = lambda line: None) -> Report:
    """Measure. Takes minutes on the default shape, and wants the machine for itself.

    Raises:
        ConfigError: the peer is asked for and not installed.
        CapacityError: memory or disk have no room.
        Qwen2AudioError: a side failed; the message is its own.
    """
    sides = ["ours", *_peer(options.peer)]
    folder = options.model or ensure(options.shape, progress=progress)
    check_memory(num_parameters(folder) * _FLOAT * len(sides))
    threads = options.threads or machine.physical_cores()
    about = machine.describe(threads) | {
        "ours": version("qwen2-audio"),
        "peer": f"transformers {version('transformers')}" if len(sides) > 1 else None,
        "checkpoint": f"{folder.name}, {num_parameters(folder) / 1e6:,.0f} M parameters",
        "dtype": "fp32",
    }
    _read_through(folder, progress)
    with ExitStack() as stack:
        workers, rows = start(sides, threads, folder, 1 if options.quick else min(options.repeats, 3), stack, progress)
        rows += [measure(line, workers, progress) for line in plan(options)]
        rows.append(measure(Measurement("peak memory", "memory", {}, 1, "GiB"), workers, progress, warm_up=False))
        stages: list[dict[str, Any]] = []
        if options.profile:
            progress("profile of our stages")
            stages = workers[0].ask("profile", seconds=3, new_tokens=8)["stages"]
    return Report(about, rows, stages)


def start(
    sides: list[str], threads: int, folder: Path, repeats: int, stack: ExitStack, progress: Progress
) -> tuple[list[Worker], list[Row]]:
    """The loaded workers, and what importing and loading took, each time in a new process as a program does it."""
    importing = Measurement("import, torch loaded", "library", {}, repeats)
    loading = Measurement("load", "load", {"folder": str(folder)}, repeats)
    workers: list[Worker] = []
    import_seconds: list[list[float]] = [[] for _ in sides]
    load_seconds: list[list[float]] = [[] for _ in sides]
    for turn in range(repeats):
        for place, side in enumerate(sides):
            progress(f"load: {side}, {turn + 1} of {repeats}")
            with ExitStack() as until_loaded:
                worker = until_loaded.enter_context(Worker(side, threads))
                import_seconds[place].append(worker.ask(importing.op)["value"])
                load_seconds[place].append(worker.ask(loading.op, **loading.arguments)["value"])
                if turn == repeats - 1:  # these stay, for all that follows
                    stack.push(until_loaded.pop_all())
                    workers.append(worker)
    nothing: list[list[Any]] = [[] for _ in sides]
    return workers, [row(importing, import_seconds, nothing), row(loading, load_seconds, nothing)]


def measure(line: Measurement, workers: list[Worker], progress: Progress, *, warm_up: bool = True) -> Row:
    """One row: the sides take turns, so that a slow minute of the machine hits both. `warm_up`: the first turn
    does not count."""
    values: list[list[Any]] = [[] for _ in workers]
    checks: list[list[Any]] = [[] for _ in workers]
    for turn in range(-1 if warm_up else 0, line.repeats):
        for worker, mine, check in zip(workers, values, checks, strict=True):
            reply = worker.ask(line.op, **line.arguments)
            if turn >= 0:
                mine.append(reply["value"])
                check[:] = reply["check"]
        progress(f"{line.name}: " + ("warm-up" if turn < 0 else f"{turn + 1} of {line.repeats}"))
    return row(line, values, checks)


def row(line: Measurement, values: list[list[Any]], checks: list[list[Any]]) -> Row:
    """Medians, their ratio, and whether both sides got the same. `values` and `checks`: ours, then the peer's."""
    known = [mine for mine in values if None not in mine]
    medians = [statistics.median(mine) for mine in known]
    if len(known) < len(values):  # the system does not say
        return Row(line.name, None, line.unit, limit=line.limit)
    spreads = [(min(mine), max(mine)) if len(mine) > 1 else None for mine in known]
    if len(medians) == 1:
        return Row(line.name, medians[0], line.unit, limit=line.limit, spread=spreads[0])
    ratio = medians[0] / medians[1] if line.more_is_better else medians[1] / medians[0]
    return Row(
        line.name, medians[0], line.unit, medians[1], ratio, line.limit, spreads[0], spreads[1], compare(*checks)
    )


def compare(ours: list[Any], peer: list[Any]) -> str:
    """What the two sides' results say: ids must be equal, values within 1e-4 of the largest."""
    if not ours and not peer:
        return ""
    if all(isinstance(value, int) for value in (*ours, *peer)):
        for place, (mine, theirs) in enumerate(zip(ours, peer, strict=True), 1):
            if mine != theirs:
                return f"token {place} differs: {mine}, peer {theirs}"
        return "same token" if len(ours) == 1 else f"same {len(ours)} tokens"
    if len(ours) != len(peer):
        return "outputs of different sizes"
    apart = max(abs(a - b) for a, b in zip(ours, peer, strict=True)) / max(abs(b) for b in peer)
    return f"same within {apart:.0e}" if apart <= _SAME else f"outputs differ by {apart:.1e}"


def check_memory(needed: int) -> None:
    """Raises CapacityError when `needed` bytes of weights would not fit, before anything is loaded."""
    room = machine.available_memory()
    if room is not None and needed > room:
        raise CapacityError(
            f"The bench holds {needed / 1e9:.1f} GB of fp32 weights in all, but {room / 1e9:.1f} GB of memory are "
            "available; close other programs, use --peer none, or a smaller --model."
        )


def _peer(asked: str | None) -> list[str]:
    installed = find_spec("transformers") is not None
    if asked == "transformers" and not installed:
        raise ConfigError(
            "transformers is not installed; install 'qwen2-audio[oracles]' to compare with it, or use --peer none."
        )
    return ["transformers"] if installed and asked != "none" else []


def _read_through(folder: Path, progress: Progress) -> None:
    """Have the files in the system's cache, or who loads first would pay for both."""
    progress(f"reading {folder}")
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while file.read(1 << 24):
                pass
