"""`python -m benchmarks model`: a whole model, each format in a process of its own, next to transformers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from qwen2_audio.bench import machine
from qwen2_audio.bench.report import Report, Row
from qwen2_audio.checkpoint.config import CONFIG_FILE
from qwen2_audio.checkpoint.memory import require_memory
from qwen2_audio.errors import ConfigError
from qwen2_audio.evaluate import random_checkpoint
from qwen2_audio.evaluate.random_checkpoint import Shape

from ..harness.bars import bar
from ..harness.ceilings import BUFFER, Ceilings
from ..harness.rows import row_with_peer
from ..harness.worker_process import Worker

PEERS = ("transformers", "none")
FORMATS = ("fp32", "int8", "int4")
CONTEXTS = (100, 1000, 4000)

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How to measure."""

    model: Path | None = None  # a checkpoint's folder; None: the random one of `shape`
    shape: Shape = field(default_factory=Shape)
    formats: tuple[str, ...] = ("fp32",)
    peer: str | None = None  # "transformers" or "none"; None: transformers if it is installed and fp32 is measured
    repeats: int = 5  # of each; at most 3 of what takes long, at least 9 of log-mel
    quick: bool = False  # clips of 1 and 3 s and one context only, few repeats
    profile: bool = True  # also time our stages
    threads: int | None = None  # of all sides; None: one a physical core

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise ConfigError(f"repeats is {self.repeats}; expected at least 1.")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads is {self.threads}; expected at least 1.")
        if self.peer is not None and self.peer not in PEERS:
            raise ConfigError(f"peer is {self.peer!r}; bench model expects one of {', '.join(PEERS)}.")
        if not self.formats or len(set(self.formats)) < len(self.formats) or set(self.formats) - set(FORMATS):
            raise ConfigError(f"format is {','.join(self.formats)!r}; expected some of {','.join(FORMATS)}, each once.")
        if self.model is not None and not (self.model / CONFIG_FILE).is_file():
            raise ConfigError(f"{self.model} has no {CONFIG_FILE}; expected the folder of a Qwen2-Audio checkpoint.")
        stored = "fp32" if self.model is None else random_checkpoint.scheme_of(self.model)
        if stored != "fp32" and self.formats != (stored,):
            raise ConfigError(
                f"{self.model} is quantised to {stored}; expected --format {stored} for it, and no other."
            )

    @property
    def label(self) -> str:
        """What the names of all rows begin with."""
        return self.shape.label if self.model is None else "checkpoint"


@dataclass(frozen=True)
class Measurement:
    """One line of the table."""

    key: str  # the end of its rows' names
    op: str  # what the workers are asked
    arguments: dict[str, Any]
    repeats: int
    unit: str = "s"
    warm_up: bool = True  # the first turn does not count
    ours_only: bool = False
    shared: bool = False  # alike in every format of ours, so that one row is enough


@dataclass(frozen=True)
class Side:
    """One process: a format of ours, or the peer."""

    format: str  # of FORMATS, or "transformers"
    folder: Path

    @property
    def ours(self) -> bool:
        return self.format in FORMATS

    def start_worker(self, threads: int) -> Worker:
        if self.ours:
            return Worker("ours", threads, module="model.worker")
        return Worker(self.format, threads, module="peers.transformers_model")


def plan(options: Options) -> list[Measurement]:
    """What the loaded sides are asked, in order: memory before what an answer to one clip does not need."""
    short = min(options.repeats, 2) if options.quick else options.repeats
    long = min(short, 3)
    fast = short if options.quick else max(short, 9)
    new_tokens = 9 if options.quick else 33
    lines = [
        Measurement("logmel_3s", "log_mel", {"seconds": 3}, fast, shared=True),
        Measurement("logmel_30s", "log_mel", {"seconds": 30}, fast, shared=True),
        Measurement("encoder_3s", "encode", {"seconds": 3}, short),
    ]
    clips = {1: short, 3: short} if options.quick else {1: short, 3: short, 10: long, 30: long}
    lines += [
        Measurement(f"ttft_{seconds}s", "first_token", {"seconds": seconds}, repeats)
        for seconds, repeats in clips.items()
    ]
    lines.append(Measurement("peak_gb", "memory", {}, 1, "GB", warm_up=False))
    second = {"seconds": max(clips)}
    lines.append(Measurement("second_question_s", "second_question", second, short, ours_only=True))
    for context in CONTEXTS[:1] if options.quick else CONTEXTS:
        decode = {"context": context, "new_tokens": new_tokens}
        lines.append(Measurement(f"decode{context}", "decode", decode, short, "tokens/s"))
    return lines


def run(options: Options, progress: Progress = lambda line: None) -> Report:
    """Measure. Takes minutes on the default shape, and wants the machine for itself.

    Raises:
        ConfigError: the peer is asked for and not installed.
        CapacityError: memory or disk have no room.
        Qwen2AudioError: a side failed; the message is its own.
    """
    peers = _peer(options)
    base = options.model or random_checkpoint.ensure(options.shape, progress=progress)
    sides = [Side(name, _folder(base, name, progress)) for name in options.formats]
    # With a peer all take turns, so that a slow minute hits each; without one, one model after the other saves memory.
    groups = [[*sides, *(Side(peer, base) for peer in peers)]] if peers else [[side] for side in sides]
    for group in groups:
        needed = sum(random_checkpoint.nbytes(side.folder) for side in group)
        require_memory(needed, f"Loading {' and '.join(side.format for side in group)} to measure")
    threads = options.threads or machine.physical_cores()
    about = machine.describe(threads) | {
        "ours": version("qwen2-audio"),
        "peer": f"transformers {version('transformers')}, fp32" if peers else None,
        "checkpoint": f"{base.name}, {random_checkpoint.num_parameters(base) / 1e6:,.0f} M parameters",
        "dtype": ", ".join(options.formats),
    }
    with Worker("ours", threads, module="harness.ceilings_worker") as worker:
        progress("what the machine can do")
        limits = Ceilings.of_reply(worker.ask("ceilings", repeats=7, buffer=BUFFER))
    about["isa"] = limits.isa
    report = Report(about, limits.rows(), [], {"ceilings": limits.to_json(), "points": []})
    for group in groups:
        _measure_group(options, group, threads, report, progress)
    return report


def _measure_group(options: Options, sides: list[Side], threads: int, report: Report, progress: Progress) -> None:
    """Load the sides, measure them in turns, and add the rows to `report`."""
    for folder in dict.fromkeys(side.folder for side in sides):
        _read_through(folder, progress)
    with ExitStack() as stack:
        repeats = 1 if options.quick else min(options.repeats, 3)
        workers, rows = start(options.label, sides, threads, repeats, stack, progress)
        for line in plan(options):
            rows += measure(options.label, line, sides, workers, progress)
        report.rows.extend(sorted(rows, key=lambda row: [side.format for side in sides].index(row.name.split(".")[1])))
        for side, worker in zip(sides, workers, strict=True):
            if options.profile and side.ours:
                progress(f"profile of our stages, {side.format}")
                _profile(options, side, worker, report)


def _profile(options: Options, side: Side, worker: Worker, report: Report) -> None:
    clips, contexts = ([3], CONTEXTS[:1]) if options.quick else ([3, 30], CONTEXTS)
    profile = worker.ask("profile", seconds=clips, contexts=contexts, new_tokens=8)
    report.profile.extend({"format": side.format, **stage} for stage in profile["stages"])
    prefix = f"{options.label}.{side.format}"
    report.roofline["points"] += [{**point, "name": f"{prefix}.{point['name']}"} for point in profile["points"]]
    name = f"{prefix}.step_over_products"
    note = "a decode step's time over that of its matrix products"
    report.rows.append(Row(name, profile["overhead"], "x", limit=bar(name), note=note))


def start(
    label: str, sides: list[Side], threads: int, repeats: int, stack: ExitStack, progress: Progress
) -> tuple[list[Worker], list[Row]]:
    """The loaded workers, and what importing and loading took, each time in a new process as a program does it."""
    workers: list[Worker] = []
    import_seconds: list[list[float]] = [[] for _ in sides]
    load_seconds: list[list[float]] = [[] for _ in sides]
    for turn in range(repeats):
        for number, side in enumerate(sides):
            progress(f"load: {side.format}, {turn + 1} of {repeats}")
            with ExitStack() as until_loaded:
                worker = until_loaded.enter_context(side.start_worker(threads))
                import_seconds[number].append(worker.ask("library")["value"])
                load_seconds[number].append(worker.ask("load", folder=str(side.folder))["value"])
                if turn == repeats - 1:  # these stay, for all that follows
                    stack.push(until_loaded.pop_all())
                    workers.append(worker)
    no_checks: list[list[Any]] = [[] for _ in sides]
    importing = Measurement("import_s", "library", {}, repeats, shared=True)
    rows = rows_of(label, importing, sides, import_seconds, no_checks)
    rows += rows_of(label, Measurement("load_s", "load", {}, repeats), sides, load_seconds, no_checks)
    return workers, rows


def measure(label: str, line: Measurement, sides: list[Side], workers: list[Worker], progress: Progress) -> list[Row]:
    """A row for each of our formats: the sides take turns, so that a slow minute of the machine hits all."""
    ours = [_representative(sides)] if line.shared else [side for side in sides if side.ours]
    measured = [(side in ours) if side.ours else not line.ours_only for side in sides]
    sides = [side for side, is_measured in zip(sides, measured, strict=True) if is_measured]
    workers = [worker for worker, is_measured in zip(workers, measured, strict=True) if is_measured]
    values: list[list[Any]] = [[] for _ in sides]
    checks: list[list[Any]] = [[] for _ in sides]
    for turn in range(-1 if line.warm_up else 0, line.repeats):
        for number, worker in enumerate(workers):
            reply = worker.ask(line.op, **line.arguments)
            if turn >= 0:
                values[number].append(reply["value"])
                checks[number] = reply["check"]
        progress(f"{line.key}: " + ("warm-up" if turn < 0 else f"{turn + 1} of {line.repeats}"))
    return rows_of(label, line, sides, values, checks)


def _representative(sides: list[Side]) -> Side:
    """The format of ours that stands for all: fp32, which the peer computes in, else the first."""
    return next((side for side in sides if side.format == "fp32"), sides[0])


def rows_of(
    label: str, line: Measurement, sides: list[Side], values: list[list[Any]], checks: list[list[Any]]
) -> list[Row]:
    """One row for each of our formats, next to the peer where there is one; results are compared with fp32's only."""
    peer = next((number for number, side in enumerate(sides) if not side.ours), None)
    rows = []
    for number, side in enumerate(sides):
        if side.ours and (not line.shared or side is _representative(sides)):
            both = [number] if peer is None else [number, peer]
            comparable = checks if side.format == "fp32" else [[] for _ in checks]
            name = f"{label}.{side.format}.{line.key}"
            rows.append(row_with_peer(name, line.unit, [values[i] for i in both], [comparable[i] for i in both]))
    return rows


def _folder(base: Path, format_name: str, progress: Progress) -> Path:
    """Where `base`'s checkpoint lies in that format."""
    if format_name in ("fp32", random_checkpoint.scheme_of(base)):
        return base
    return random_checkpoint.quantized(base, format_name, progress)


def _peer(options: Options) -> list[str]:
    installed = find_spec("transformers") is not None
    if options.peer == "transformers" and not installed:
        raise ConfigError(
            "transformers is not installed; install 'qwen2-audio[oracles]' to compare with it, or use --peer none."
        )
    if options.peer == "transformers" and options.model and random_checkpoint.scheme_of(options.model) != "fp32":
        raise ConfigError("transformers does not read our quantised checkpoints; use --peer none.")
    wanted = options.peer == "transformers" or (options.peer is None and "fp32" in options.formats)
    return ["transformers"] if installed and wanted else []


def _read_through(folder: Path, progress: Progress) -> None:
    """Read the files into the system's cache, or the side that loads first would pay for both."""
    progress(f"reading {folder}")
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while file.read(1 << 24):
                pass
