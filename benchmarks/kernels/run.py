"""`bench kernels`: the quantised matrix products alone, next to onnxruntime's and to what the machine can do."""

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


def run(options: Options, progress: Progress = lambda line: None) -> Report:
    """Measure. Takes minutes on the default shapes, and wants the machine for itself.

    Raises:
        ConfigError: no native kernels, an instruction set that cannot run here, a peer that is not installed.
        Qwen2AudioError: a side failed; the message is its own.
    """
    threads = options.threads or machine.physical_cores()
    with ExitStack() as stack:
        peer = _start_peer(options, threads, stack)
        about = machine.describe(threads) | {"ours": version("qwen2-audio"), "dtype": "quantised"}
        about["peer"] = None if peer is None else peer.ask("about")["peer"]
        first = "" if options.isa in (None, "all") else str(options.isa)
        isas = [first]
        rows: list[Row] = []
        points: list[dict[str, Any]] = []
        found: Ceilings | None = None
        for place in range(len(ISAS)):
            if place == len(isas):
                break
            with ExitStack() as of_isa:
                worker = of_isa.enter_context(
                    Worker(
                        "ours",
                        threads,
                        module="kernels.worker",
                        environment={ISA_VARIABLE: isas[place]} if isas[place] else None,
                    )
                )
                kernels = worker.ask("about")
                progress(f"{kernels['isa']}: what the machine can do")
                limits = _ceilings(worker, options)
                if found is None:
                    found, about["isa"] = limits, kernels["isa"]
                    rows += limits.rows()
                    if options.isa == "all":
                        isas += [isa for isa in kernels["runs"] if isa not in (kernels["isa"], SLOW)]
                bench = _Bench(options, worker, peer if place == 0 else None, limits.shares(), progress)
                ending = "" if place == 0 else f"@{kernels['isa']}"
                rows += bench.rows(ending)
                points += bench.points
    assert found is not None
    about["checkpoint"] = f"products alone, {about['isa']}"
    return Report(about, rows, roofline={"ceilings": found.to_json(), "points": points})


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


def _ceilings(worker: Worker, options: Options) -> Ceilings:
    repeats, buffer = 3 if options.quick else REPEATS, max(options.working_set, 1 << 20)
    return Ceilings.of_reply(worker.ask("ceilings", repeats=repeats, buffer=buffer))


class _Bench:
    """One instruction set's products, taking turns with the peer's."""

    def __init__(
        self, options: Options, worker: Worker, peer: Worker | None, shares: Shares, progress: Progress
    ) -> None:
        self._options, self._worker, self._peer, self._shares = options, worker, peer, shares
        self._progress = progress
        self.points: list[dict[str, Any]] = []

    def rows(self, ending: str) -> list[Row]:
        shapes: Sequence[tuple[int, int]] = self._options.shapes
        if self._options.quick:
            shapes = [min(shapes, key=lambda shape: shape[0] * shape[1])]
        out: list[Row] = []
        for form in FORMATS:
            for shape in shapes:
                out += self._of(form, shape, ending)
        return out

    def _of(self, form: Format, shape: tuple[int, int], ending: str) -> list[Row]:
        """Decode, prefill and errors of one format and shape."""
        inputs, outputs = shape
        what = {"bits": form.bits, "group": form.group, "inputs": inputs, "outputs": outputs}
        working_set = self._options.working_set // (4 if self._options.quick else 1)
        sides = [self._worker, *([self._peer] if self._peer is not None and form.group else [])]
        nbytes = [side.ask("prepare", **what, working_set=working_set)["nbytes"] for side in sides]
        name = f"{inputs}x{outputs}{ending}"
        rows = [self._measure(f"{form.name}.decode.{name}", sides, shape, 1, nbytes[0])]
        rows += [self._measure(f"{form.name}.prefill{n}.{name}", sides, shape, n, nbytes[0]) for n in PREFILLS]
        if ending:  # every instruction set has the same results
            return rows
        errors = self._worker.ask("errors", **what)
        for part, label in (("total", "error"), ("weights", "error_weights"), ("activations", "error_activations")):
            full = f"{form.name}.{label}.{inputs}x{outputs}"
            rows.append(Row(full, errors[part], "rel. L2", limit=bar(full), note="against float64"))
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
            for side, mine in zip(sides, rates, strict=True):
                seconds = side.ask("time", rows=rows, calls=calls)["value"]
                if turn >= 0:
                    mine.append(work / seconds / 1e9)
        self._progress(f"{name}: {statistics.median(rates[0]):.3g} {unit}")
        medians = [statistics.median(mine) for mine in rates]
        spreads = [(min(mine), max(mine)) for mine in rates]
        touched = nbytes + 4 * rows * sum(shape)
        per_second = medians[0] / work * 1e9
        self.points.append({"name": name, "intensity": operations / touched, "gops": operations * per_second / 1e9})
        note = (
            self._shares.of_read(nbytes * per_second)
            if rows == 1
            else self._shares.of_arithmetic(operations * per_second, integers=not name.startswith("fp16"))
        )
        if len(sides) == 1:
            return Row(name, medians[0], unit, limit=bar(name), spread=spreads[0], note=note)
        ratio = medians[0] / medians[1]
        return Row(name, medians[0], unit, medians[1], ratio, bar(name), spreads[0], spreads[1], note)
