"""`bench model --device`: a random model made on the device, decoding and first tokens, next to transformers there.

Nothing is read from a disk. The sides have the device one after the other, so that each one's memory is its own.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch

from qwen2_audio.bench import machine
from qwen2_audio.bench.report import Report, Row
from qwen2_audio.checkpoint.config import Qwen2AudioConfig
from qwen2_audio.checkpoint.memory import format_bytes, format_count, require_memory
from qwen2_audio.errors import ConfigError
from qwen2_audio.model.paged import BLOCK

from ..harness.random_checkpoint import SHAPES, Shape
from ..harness.worker_process import Worker

DEVICES = ("cuda", "cpu")
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
PEERS = ("transformers", "none")
# What is asked of the official shape in bf16 on a GPU of 4.3 TB/s (an H200).
SHARES = {1: 0.85, 32: 0.60}  # sequences -> of the rate that the memory's bandwidth allows
FIRST_TOKENS = {3.0: 0.015, 30.0: 0.050}  # seconds of a clip -> to the first token
RATIO = 5.0  # times the peer's tokens a second, with one sequence

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
            found, known = ",".join(self.formats), ", ".join(DTYPES)
            raise ConfigError(f"format is {found!r}; bench model --device expects one of {known}.")
        require_device(self.device)

    @property
    def format(self) -> str:
        return self.formats[0]

    @property
    def label(self) -> str:
        """What the names of all rows begin with."""
        return f"{self.shape.label}.{self.format}.{self.device}"

    @property
    def judged(self) -> bool:
        """Whether figures are held to what is asked."""
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
        return cls([1, 4], 60, 6, [3.0], 2**24) if options.quick else cls()


def require_device(device: str) -> None:
    """Raise ConfigError where `device` is unknown or not there."""
    if device not in DEVICES:
        raise ConfigError(f"device is {device!r}; expected one of {', '.join(DEVICES)}.")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"device is 'cuda', and torch {torch.__version__} sees no NVIDIA GPU; run this on a machine with one and "
            "with a CUDA build of torch, or use --device cpu."
        )


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
    """The table, from what `_measure` found of both sides; `theirs` may be empty."""
    label, judged = options.label, options.judged
    bandwidth = statistics.median(ours["bandwidth"])
    yield _row(
        f"{label}.bandwidth", "GB/s", [rate / 1e9 for rate in ours["bandwidth"]], note="copied, read and written"
    )
    for count in amounts.running:
        name = f"decode{count}"
        most = bandwidth * count / (ours["weights"] + count * amounts.context * ours["position"])  # tokens a second
        share = statistics.median(ours[name]) / most
        yield _row(
            f"{label}.{name}",
            "tokens/s",
            ours[name],
            theirs.get(name),
            limit=SHARES[count] * most if judged and count in SHARES else None,
            ratio_limit=RATIO if judged and count == 1 and theirs else None,
            note=f"{share:.0%} of the {most:,.0f} that bandwidth allows; {amounts.context} positions each",
        )
    for seconds in amounts.clips:
        name = f"ttft_{seconds:g}s"
        limit = FIRST_TOKENS.get(seconds) if judged else None
        yield _row(f"{label}.{name}", "s", ours[name], theirs.get(name), limit=limit, note="from the waveform")
    note = f"{format_bytes(ours['weights'])} of weights read a step, {format_bytes(ours['cache'])} of cache"
    yield _row(f"{label}.peak_gb", "GB", [ours["peak"]], [theirs["peak"]] if theirs else None, note=note)


def _measure(side: str, options: Options, amounts: Amounts, threads: int, progress: Progress) -> Measured:
    """Everything one side is asked, in a process that has the device for itself. Lists have a value a repeat."""
    longest = amounts.context + 2 * amounts.steps + max(amounts.running) + 2 * BLOCK
    room = max(amounts.running) * longest + 1024  # positions; a clip of 30 s takes 800
    asked = {"shape": asdict(options.shape), "device": options.device, "dtype": DTYPES[options.format]}
    with Worker(side, threads, module="model.device_worker") as worker:
        progress(f"{side}: a random model on {options.device}")
        found: Measured = worker.ask("load", **asked, kv_tokens=room, sequences=max(amounts.running))
        if side == "ours":
            progress("the bandwidth of the memory")
            found["bandwidth"] = worker.ask("bandwidth", nbytes=amounts.copied, repeats=5)["value"]
        decode = {"context": amounts.context, "steps": amounts.steps}
        orders: dict[str, tuple[str, Measured]] = {
            f"decode{count}": ("decode", {**decode, "running": count}) for count in amounts.running
        }
        orders |= {f"ttft_{seconds:g}s": ("first_token", {"seconds": seconds}) for seconds in amounts.clips}
        for name, (op, arguments) in orders.items():
            found[name] = []
            for turn in range(-1, options.repeats):  # the first one warms up: graphs, kernels, what is kept
                progress(f"{side}: {name}: " + ("warm-up" if turn < 0 else f"{turn + 1} of {options.repeats}"))
                value = worker.ask(op, **arguments, variant=turn + 1)["value"]
                found[name] += [value] if turn >= 0 else []
        found["peak"] = worker.ask("memory")["value"]
    return found


def _row(
    name: str,
    unit: str,
    ours: list[Any],
    theirs: list[Any] | None = None,
    *,
    limit: float | None = None,
    ratio_limit: float | None = None,
    note: str = "",
) -> Row:
    """Medians, their ratio, and the ranges."""
    sides = [one if one and None not in one else None for one in (ours, theirs)]
    mine, peer = (None if one is None else statistics.median(one) for one in sides)
    spread, peer_spread = (None if one is None or len(one) < 2 else (min(one), max(one)) for one in sides)
    ratio = None if mine is None or peer is None else mine / peer if unit == "tokens/s" else peer / mine
    return Row(name, mine, unit, peer, ratio, limit, spread, peer_spread, note, ratio_limit)


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
