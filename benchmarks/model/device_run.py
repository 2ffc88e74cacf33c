"""`python -m benchmarks model --device`: a random model made on the device, decoding and first tokens there.

Nothing is read from a disk. The sides have the device one after the other, so that each one's memory is its own.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch

from qwen2_audio.bench import machine
from qwen2_audio.bench.report import Report, Row
from qwen2_audio.checkpoint.config import Qwen2AudioConfig
from qwen2_audio.checkpoint.memory import format_bytes, format_count, require_memory
from qwen2_audio.errors import ConfigError
from qwen2_audio.evaluate.random_checkpoint import SHAPES, Shape
from qwen2_audio.model.paged import BLOCK

from ..harness.devices import require_device
from ..harness.rows import row_with_peer
from ..harness.worker_process import Worker

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
PEERS = ("transformers", "none")
# Limits of the official shape in bf16 on a GPU of 4.3 TB/s (an H200).
BANDWIDTH_SHARES = {1: 0.85, 32: 0.60}  # sequences -> share of the rate that the memory's bandwidth allows, at least
FIRST_TOKEN_SECONDS = {3.0: 0.015, 30.0: 0.050}  # seconds of a clip -> seconds to the first token, at most
PEER_RATIO = 5.0  # times the peer's tokens a second, with one sequence, at least

Progress = Callable[[str], None]
Measured = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """How to measure."""

    device: str = "cuda"
    shape: Shape = SHAPES["full"]
    formats: tuple[str, ...] = ("bf16",)  # one
    peer: str | None = None  # "transformers" or "none"; None: transformers if it is installed
    repeats: int = 3
    quick: bool = False  # fewer sequences, short contexts and clips
    threads: int | None = None  # of the CPU; None: one a physical core

    def __post_init__(self) -> None:
        for name in ("repeats", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; expected at least 1.")
        if self.peer not in (None, *PEERS):
            raise ConfigError(f"peer is {self.peer!r}; bench model expects one of {', '.join(PEERS)}.")
        if len(self.formats) != 1 or self.formats[0] not in DTYPES:
            given, known = ",".join(self.formats), ", ".join(DTYPES)
            raise ConfigError(f"format is {given!r}; bench model --device expects one of {known}.")
        require_device(self.device)

    @property
    def format(self) -> str:
        return self.formats[0]

    @property
    def label(self) -> str:
        """What the names of all rows begin with."""
        return f"{self.shape.label}.{self.format}.{self.device}"

    @property
    def has_limits(self) -> bool:
        """Whether the limits are meant for this shape, format and device."""
        return self.label == "model.bf16.cuda"


@dataclass(frozen=True)
class Amounts:
    """How much of everything."""

    running: list[int] = field(default_factory=lambda: [1, 8, 32])
    context: int = 800  # positions behind each that decodes
    steps: int = 32
    clips: list[float] = field(default_factory=lambda: [3.0, 30.0])  # seconds
    copied: int = 2**30  # bytes, to measure the bandwidth with

    @classmethod
    def of(cls, options: Options) -> Amounts:
        """The amounts that `options` ask for."""
        return cls([1, 4], 60, 6, [3.0], 2**24) if options.quick else cls()


def run(options: Options, progress: Progress = lambda line: None) -> Report:
    """Measure: minutes on a GPU.

    Raises:
        ConfigError: the peer is asked for and not installed.
        CapacityError: memory has no room, where the device is the CPU.
        Qwen2AudioError: a side failed, for want of the GPU's memory for example; the message is its own.
    """
    peer, amounts = _peer(options), Amounts.of(options)
    parameters = _parameters(options.shape)
    if options.device == "cpu":
        itemsize = getattr(torch, DTYPES[options.format]).itemsize
        require_memory(parameters * itemsize, "The random model to measure on")
    threads = options.threads or machine.physical_cores()
    ours = _measure("ours", options, amounts, threads, progress)
    theirs = _measure("transformers", options, amounts, threads, progress) if peer else {}
    about = machine.describe(threads) | {
        "ours": version("qwen2-audio"),
        "peer": f"transformers {version('transformers')}" if peer else None,
        "checkpoint": f"random weights, {format_count(parameters)} parameters",
        "dtype": f"{options.format} on {ours['device']}",
        "device": ours["device"],
    }
    return Report(about, list(rows(options, amounts, ours, theirs)))


def rows(options: Options, amounts: Amounts, ours: Measured, theirs: Measured) -> Iterator[Row]:
    """The table, from what `_measure` returned for both sides; `theirs` may be empty."""
    has_limits = options.has_limits

    def row(name: str, unit: str, note: str, limit: float | None = None, ratio_limit: float | None = None) -> Row:
        sides = [side[name] for side in (ours, theirs) if name in side]
        measured = row_with_peer(f"{options.label}.{name}", unit, sides, [[] for _ in sides])
        return replace(measured, limit=limit, ratio_limit=ratio_limit, note=note)

    yield row("bandwidth", "GB/s", "copied, read and written")
    bandwidth = statistics.median(ours["bandwidth"]) * 1e9
    for count in amounts.running:
        name = f"decode{count}"
        allowed = bandwidth * count / (ours["weights"] + count * amounts.context * ours["position"])  # tokens a second
        share = statistics.median(ours[name]) / allowed
        yield row(
            name,
            "tokens/s",
            f"{share:.0%} of the {allowed:,.0f} that bandwidth allows; {amounts.context} positions each",
            limit=BANDWIDTH_SHARES[count] * allowed if has_limits and count in BANDWIDTH_SHARES else None,
            ratio_limit=PEER_RATIO if has_limits and count == 1 and theirs else None,
        )
    for seconds in amounts.clips:
        limit = FIRST_TOKEN_SECONDS.get(seconds) if has_limits else None
        yield row(f"ttft_{seconds:g}s", "s", "from the waveform", limit=limit)
    yield row(
        "peak_gb",
        "GB",
        f"{format_bytes(ours['weights'])} of weights read a step, {format_bytes(ours['cache'])} of cache",
    )


def _measure(side: str, options: Options, amounts: Amounts, threads: int, progress: Progress) -> Measured:
    """All that one side is asked, in a process that has the device for itself: replies by their rows' names.

    Lists have a value a repeat.
    """
    longest = amounts.context + 2 * amounts.steps + max(amounts.running) + 2 * BLOCK
    kv_tokens = max(amounts.running) * longest + 1024  # a clip of 30 s takes 800
    load = {"shape": asdict(options.shape), "device": options.device, "dtype": DTYPES[options.format]}
    module = "model.device_worker" if side == "ours" else "peers.transformers_device"
    with Worker(side, threads, module=module) as worker:
        progress(f"{side}: a random model on {options.device}")
        measured: Measured = worker.ask("load", **load, kv_tokens=kv_tokens, sequences=max(amounts.running))
        if side == "ours":
            progress("the bandwidth of the memory")
            rates = worker.ask("bandwidth", nbytes=amounts.copied, repeats=5)["value"]
            measured["bandwidth"] = [rate / 1e9 for rate in rates]
        decode = {"context": amounts.context, "steps": amounts.steps}
        orders: dict[str, tuple[str, Measured]] = {
            f"decode{count}": ("decode", {**decode, "running": count}) for count in amounts.running
        }
        orders |= {f"ttft_{seconds:g}s": ("first_token", {"seconds": seconds}) for seconds in amounts.clips}
        for name, (op, arguments) in orders.items():
            measured[name] = []
            for turn in range(-1, options.repeats):  # the first one warms up: graphs, kernels, what is kept
                progress(f"{side}: {name}: " + ("warm-up" if turn < 0 else f"{turn + 1} of {options.repeats}"))
                value = worker.ask(op, **arguments, variant=turn + 1)["value"]
                measured[name] += [value] if turn >= 0 else []
        measured["peak_gb"] = [worker.ask("memory")["value"]]
    return measured


def _parameters(shape: Shape) -> int:
    from qwen2_audio.api.placement import sizes_of

    return sizes_of(Qwen2AudioConfig.from_dict(shape.to_config())).parameters


def _peer(options: Options) -> bool:
    installed = find_spec("transformers") is not None
    if options.peer == "transformers" and not installed:
        raise ConfigError(
            "transformers is not installed; install 'qwen2-audio[oracles]' to compare with it, or use --peer none."
        )
    return installed and options.peer != "none"
