"""`bench model`: a whole model, each format in a process of its own, next to transformers where it is asked for."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from qwen2_audio.bench import machine
from qwen2_audio.bench.report import Report, Row, more_is_better
from qwen2_audio.checkpoint.config import CONFIG_FILE
from qwen2_audio.checkpoint.memory import require_memory
from qwen2_audio.errors import ConfigError

from ..harness import random_checkpoint as checkpoint
from ..harness.bars import RATIOS, bar
from ..harness.ceilings import BUFFER, Ceilings
from ..harness.random_checkpoint import Shape
from ..harness.worker_process import Worker

PEERS = ("transformers", "none")
FORMATS = ("fp32", "int8", "int4")
CONTEXTS = (100, 1000, 4000)
_SAME = 1e-4  # of the largest value; what two right outputs may differ by

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
        stored = "fp32" if self.model is None else checkpoint.scheme_of(self.model)
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
    base = options.model or checkpoint.ensure(options.shape, progress=progress)
    sides = [Side(form, _folder(base, form, progress)) for form in options.formats]
    # With a peer all take turns, so that a slow minute hits each; without one, one model after the other saves memory.
    groups = [[*sides, *(Side(peer, base) for peer in peers)]] if peers else [[side] for side in sides]
    for group in groups:
        needed = sum(checkpoint.nbytes(side.folder) for side in group)
        require_memory(needed, f"Loading {' and '.join(side.format for side in group)} to measure")
    threads = options.threads or machine.physical_cores()
    about = machine.describe(threads) | {
        "ours": version("qwen2-audio"),
        "peer": f"transformers {version('transformers')}, fp32" if peers else None,
        "checkpoint": f"{base.name}, {checkpoint.num_parameters(base) / 1e6:,.0f} M parameters",
        "dtype": ", ".join(options.formats),
    }
    with Worker("ours", threads, module="kernels.worker") as worker:
        progress("what the machine can do")
        limits = Ceilings.of_reply(worker.ask("ceilings", repeats=7, buffer=BUFFER))
    about["isa"] = limits.isa
    report = Report(about, limits.rows(), [], {"ceilings": limits.to_json(), "points": []})
    for group in groups:
        _measure_group(options, group, threads, report, progress)
    return report


def _measure_group(options: Options, sides: list[Side], threads: int, report: Report, progress: Progress) -> None:
    """Load the sides, have them measured in turns, and add what came out to `report`."""
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
    found = worker.ask("profile", seconds=clips, contexts=contexts, new_tokens=8)
    report.profile.extend({"format": side.format, **stage} for stage in found["stages"])
    name = f"{options.label}.{side.format}"
    report.roofline["points"] += [{**point, "name": f"{name}.{point['name']}"} for point in found["points"]]
    full = f"{name}.step_over_products"
    note = "a decode step's time over that of its matrix products"
    report.rows.append(Row(full, found["overhead"], "x", limit=bar(full), note=note))


def start(
    label: str, sides: list[Side], threads: int, repeats: int, stack: ExitStack, progress: Progress
) -> tuple[list[Worker], list[Row]]:
    """The loaded workers, and what importing and loading took, each time in a new process as a program does it."""
    workers: list[Worker] = []
    importing: list[list[float]] = [[] for _ in sides]
    loading: list[list[float]] = [[] for _ in sides]
    for turn in range(repeats):
        for place, side in enumerate(sides):
            progress(f"load: {side.format}, {turn + 1} of {repeats}")
            with ExitStack() as until_loaded:
                worker = until_loaded.enter_context(Worker("ours" if side.ours else side.format, threads))
                importing[place].append(worker.ask("library")["value"])
                loading[place].append(worker.ask("load", folder=str(side.folder))["value"])
                if turn == repeats - 1:  # these stay, for all that follows
                    stack.push(until_loaded.pop_all())
                    workers.append(worker)
    nothing: list[list[Any]] = [[] for _ in sides]
    rows = rows_of(label, Measurement("import_s", "library", {}, repeats, shared=True), sides, importing, nothing)
    return workers, rows + rows_of(label, Measurement("load_s", "load", {}, repeats), sides, loading, nothing)


def measure(label: str, line: Measurement, sides: list[Side], workers: list[Worker], progress: Progress) -> list[Row]:
    """A row for each of our formats: the sides take turns, so that a slow minute of the machine hits all."""
    ours = [_one(sides)] if line.shared else [side for side in sides if side.ours]
    asked = [place for place, side in enumerate(sides) if (side in ours if side.ours else not line.ours_only)]
    values: list[list[Any]] = [[] for _ in asked]
    checks: list[list[Any]] = [[] for _ in asked]
    for turn in range(-1 if line.warm_up else 0, line.repeats):
        for place, mine, check in zip(asked, values, checks, strict=True):
            reply = workers[place].ask(line.op, **line.arguments)
            if turn >= 0:
                mine.append(reply["value"])
                check[:] = reply["check"]
        progress(f"{line.key}: " + ("warm-up" if turn < 0 else f"{turn + 1} of {line.repeats}"))
    return rows_of(label, line, [sides[place] for place in asked], values, checks)


def _one(sides: list[Side]) -> Side:
    """The format of ours that stands for all: fp32, which the peer computes in, else the first."""
    return next((side for side in sides if side.format == "fp32"), sides[0])


def rows_of(
    label: str, line: Measurement, sides: list[Side], values: list[list[Any]], checks: list[list[Any]]
) -> list[Row]:
    """One row for each of our formats, next to the peer where there is one; results are compared with fp32's only."""
    theirs = next((place for place, side in enumerate(sides) if not side.ours), None)
    rows = []
    for place, side in enumerate(sides):
        if side.ours and (not line.shared or side is _one(sides)):
            both = [place] if theirs is None else [place, theirs]
            comparable = checks if side.format == "fp32" else [[] for _ in checks]
            name = f"{label}.{side.format}.{line.key}"
            rows.append(row(name, line.unit, [values[i] for i in both], [comparable[i] for i in both]))
    return rows


def row(name: str, unit: str, values: list[list[Any]], checks: list[list[Any]]) -> Row:
    """Medians, their ratio, and whether both sides got the same. `values` and `checks`: ours, then the peer's."""
    known = [mine for mine in values if None not in mine]
    limit = bar(name)
    if len(known) < len(values):  # the system does not say
        return Row(name, None, unit, limit=limit)
    medians = [statistics.median(mine) for mine in known]
    spreads = [(min(mine), max(mine)) if len(mine) > 1 else None for mine in known]
    if len(medians) == 1:
        return Row(name, medians[0], unit, limit=limit, spread=spreads[0])
    ratio = medians[0] / medians[1] if more_is_better(unit) else medians[1] / medians[0]
    note = compare(*checks)
    return Row(name, medians[0], unit, medians[1], ratio, limit, spreads[0], spreads[1], note, RATIOS.get(name))


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


def _folder(base: Path, form: str, progress: Progress) -> Path:
    """Where `base`'s checkpoint lies in `form`."""
    return base if form in ("fp32", checkpoint.scheme_of(base)) else checkpoint.quantized(base, form, progress)


def _peer(options: Options) -> list[str]:
    installed = find_spec("transformers") is not None
    if options.peer == "transformers" and not installed:
        raise ConfigError(
            "transformers is not installed; install 'qwen2-audio[oracles]' to compare with it, or use --peer none."
        )
    if options.peer == "transformers" and options.model and checkpoint.scheme_of(options.model) != "fp32":
        raise ConfigError("transformers does not read our quantised checkpoints; use --peer none.")
    wanted = options.peer == "transformers" or (options.peer is None and "fp32" in options.formats)
    return ["transformers"] if installed and wanted else []


def _read_through(folder: Path, progress: Progress) -> None:
    """Have the files in the system's cache, or who loads first would pay for both."""
    progress(f"reading {folder}")
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while file.read(1 << 24):
                pass
