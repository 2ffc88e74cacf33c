"""`python -m benchmarks kernels`: the quantised matrix products alone, next to onnxruntime's."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from qwen2_audio.bench import machine
from qwen2_audio.bench.report import Report, Row
from qwen2_audio.errors import ConfigError
from qwen2_audio.native.library import ISA_VARIABLE, ISAS

from ..harness.bars import bar
from ..harness.ceilings import BUFFER, REPEATS, Ceilings, Shares
from ..harness.worker_process import Worker

PEERS = ("onnxruntime", "none")
SHAPES = ((4096, 11008), (11008, 4096), (4096, 4096))  # inputs, outputs: what the official model is made of
SLOW = "portable"  # takes minutes; measured when it is named
PREFILLS = (128, 780)  # rows: a short prompt, and one with 30 s of sound

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Format:
    """A way to store a weight."""

    name: str
    bits: int
    group: int


FORMATS = (Format("w4a8", 4, 64), Format("w8", 8, 32), Format("fp16", 16, 0))


@dataclass(frozen=True)
class Options:
    """How to measure."""

    peer: str | None = None  # "onnxruntime" or "none"; None: onnxruntime if it is installed
    peer_python: Path | None = None  # the interpreter that has it; None: this one
    isa: str | None = None  # one of ISAS, or "all" that are fast and run here; None: the best
    repeats: int = 9  # turns of each product
    quick: bool = False  # the smallest shape only, few turns, less memory between two uses of a weight
    threads: int | None = None  # None: one a physical core
    shapes: tuple[tuple[int, int], ...] = SHAPES
    working_set: int = BUFFER  # bytes between two uses of a weight when decoding, so that no cache helps

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise ConfigError(f"repeats is {self.repeats}; expected at least 1.")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads is {self.threads}; expected at least 1.")
        if self.peer is not None and self.peer not in PEERS:
            raise ConfigError(f"peer is {self.peer!r}; bench kernels expects one of {', '.join(PEERS)}.")
        if self.isa is not None and self.isa not in (*ISAS, "all"):
            raise ConfigError(f"isa is {self.isa!r}; expected one of {', '.join((*ISAS, 'all'))}.")
        if self.peer_python is not None and not self.peer_python.is_file():
            raise ConfigError(f"{self.peer_python} is no file; expected a Python interpreter that has onnxruntime.")


@dataclass(frozen=True)
class _IsaResult:
    """What was measured on one instruction set."""

    isa: str
    supported: list[str]  # instruction sets that run here, this one included
    ceilings: Ceilings
    rows: list[Row]
    points: list[dict[str, Any]]  # of the roofline


def run(options: Options, progress: Progress = lambda line: None) -> Report:
    """Measure. Takes minutes on the default shapes, and wants the machine for itself.

    Raises:
        ConfigError: no native kernels, an instruction set that cannot run here, a peer that is not installed.
        Qwen2AudioError: a side failed; the message is its own.
    """
    threads = options.threads or machine.physical_cores()
    about = machine.describe(threads) | {"ours": version("qwen2-audio"), "dtype": "quantised", "peer": None}
    with ExitStack() as stack:
        peer = _start_peer(options, threads, stack)
        if peer is not None:
            about["peer"] = peer.ask("about")["peer"]
        isa = None if options.isa == "all" else options.isa
        first = _measure_isa(options, isa, threads, peer, progress)
    rows, points = first.ceilings.rows() + first.rows, first.points
    if options.isa == "all":
        for isa in first.supported:
            if isa not in (first.isa, SLOW):
                other = _measure_isa(options, isa, threads, None, progress, suffix=f"@{isa}")
                rows, points = rows + other.rows, points + other.points
    about |= {"isa": first.isa, "checkpoint": f"products alone, {first.isa}"}
    return Report(about, rows, roofline={"ceilings": first.ceilings.to_json(), "points": points})


def _measure_isa(
    options: Options, isa: str | None, threads: int, peer: Worker | None, progress: Progress, suffix: str = ""
) -> _IsaResult:
    """The products on instruction set `isa`, or the best one that runs here; `suffix` ends the names of the rows."""
    environment = None if isa is None else {ISA_VARIABLE: isa}
    with Worker("ours", threads, module="kernels.worker", environment=environment) as worker:
        about = worker.ask("about")
        progress(f"{about['isa']}: what the machine can do")
        repeats, buffer = 3 if options.quick else REPEATS, max(options.working_set, 1 << 20)
        ceilings = Ceilings.of_reply(worker.ask("ceilings", repeats=repeats, buffer=buffer))
        turns = _Turns(options, worker, peer, ceilings.shares(), progress)
        return _IsaResult(about["isa"], about["runs"], ceilings, turns.rows(suffix), turns.points)


def _start_peer(options: Options, threads: int, stack: ExitStack) -> Worker | None:
    here = all(find_spec(name) is not None for name in ("onnxruntime", "onnx"))
    if options.peer == "none" or (options.peer is None and options.peer_python is None and not here):
        return None
    if options.peer_python is None and not here:
        raise ConfigError(
            "onnxruntime and onnx are not installed; install both, name an interpreter that has them with "
            "--peer-python, or use --peer none."
        )
    return stack.enter_context(
        Worker("onnxruntime", threads, module="peers.onnxruntime_products", python=options.peer_python)
    )


class _Turns:
    """One instruction set's products, taking turns with the peer's."""

    def __init__(
        self, options: Options, worker: Worker, peer: Worker | None, shares: Shares, progress: Progress
    ) -> None:
        self._options, self._worker, self._peer, self._shares = options, worker, peer, shares
        self._progress = progress
        self.points: list[dict[str, Any]] = []

    def rows(self, suffix: str) -> list[Row]:
        """All rows, with `suffix` at the end of their names."""
        shapes: Sequence[tuple[int, int]] = self._options.shapes
        if self._options.quick:
            shapes = [min(shapes, key=lambda shape: shape[0] * shape[1])]
        return [row for storage in FORMATS for shape in shapes for row in self._rows_of(storage, shape, suffix)]

    def _rows_of(self, storage: Format, shape: tuple[int, int], suffix: str) -> list[Row]:
        """Decode, prefill and errors of one format and shape."""
        inputs, outputs = shape
        weight = {"bits": storage.bits, "group": storage.group, "inputs": inputs, "outputs": outputs}
        working_set = self._options.working_set // (4 if self._options.quick else 1)
        sides = [self._worker, *([self._peer] if self._peer is not None and storage.group else [])]
        nbytes = [side.ask("prepare", **weight, working_set=working_set)["nbytes"] for side in sides]
        ending = f"{inputs}x{outputs}{suffix}"
        rows = [self._measure(f"{storage.name}.decode.{ending}", sides, shape, 1, nbytes[0])]
        rows += [self._measure(f"{storage.name}.prefill{n}.{ending}", sides, shape, n, nbytes[0]) for n in PREFILLS]
        if suffix:  # every instruction set has the same results
            return rows
        errors = self._worker.ask("errors", **weight)
        for part, label in (("total", "error"), ("weights", "error_weights"), ("activations", "error_activations")):
            name = f"{storage.name}.{label}.{ending}"
            rows.append(Row(name, errors[part], "rel. L2", limit=bar(name), note="against float64"))
        return rows

    def _measure(self, name: str, sides: list[Worker], shape: tuple[int, int], rows: int, nbytes: int) -> Row:
        """Billions of weights a second when decoding, else billions of operations a second: medians of the turns."""
        turns = min(self._options.repeats, 3) if self._options.quick else self._options.repeats
        calls = 0 if rows == 1 else max(1, 400 // rows)
        weights = shape[0] * shape[1]
        operations = 2 * rows * weights
        work, unit = (weights, "Gw/s") if rows == 1 else (operations, "GOP/s")
        rates: list[list[float]] = [[] for _ in sides]
        for turn in range(-1, turns):  # the first one warms up
            for side, side_rates in zip(sides, rates, strict=True):
                seconds = side.ask("time", rows=rows, calls=calls)["value"]
                if turn >= 0:
                    side_rates.append(work / seconds / 1e9)
        self._progress(f"{name}: {statistics.median(rates[0]):.3g} {unit}")
        medians = [statistics.median(side_rates) for side_rates in rates]
        spreads = [(min(side_rates), max(side_rates)) for side_rates in rates]
        touched_bytes = nbytes + 4 * rows * sum(shape)
        per_second = medians[0] / work * 1e9
        self.points.append(
            {"name": name, "intensity": operations / touched_bytes, "gops": operations * per_second / 1e9}
        )
        note = (
            self._shares.of_read(nbytes * per_second)
            if rows == 1
            else self._shares.of_arithmetic(operations * per_second, integers=not name.startswith("fp16"))
        )
        if len(sides) == 1:
            return Row(name, medians[0], unit, limit=bar(name), spread=spreads[0], note=note)
        ratio = medians[0] / medians[1]
        return Row(name, medians[0], unit, medians[1], ratio, bar(name), spreads[0], spreads[1], note)
