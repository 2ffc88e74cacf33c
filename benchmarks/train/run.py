"""`python -m benchmarks train`: an optimiser step next to one of transformers and peft.

Both sides have the same checkpoint and batch, and compute in fp32 with the same rank, targets, optimiser and clipping.
One process lives at a time, so that each has the memory to itself; the sides take turns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from qwen2_audio.bench import machine
from qwen2_audio.bench.report import Report, Row
from qwen2_audio.checkpoint.config import CONFIG_FILE
from qwen2_audio.checkpoint.locate import nano_path
from qwen2_audio.checkpoint.memory import available_bytes, require_memory
from qwen2_audio.errors import ConfigError
from qwen2_audio.evaluate import random_checkpoint
from qwen2_audio.evaluate.random_checkpoint import Shape

from ..harness.prompt_ids import question_ids
from ..harness.rows import row_with_peer
from ..harness.worker_process import Worker
from .session import ANSWER_TOKENS, audio_tokens

PEERS = ("transformers", "none")
WORKERS = {"ours": "train.worker", "transformers": "peers.transformers_training"}
METHODS = ("lora", "full")
SECONDS = [2.0, 4.0, 7.0, 10.0]  # of the clips of a batch
QUICK_SECONDS = [2.0, 3.0]
# Bytes for each parameter: weight and gradient, with AdamW two moments more; LoRA's own are few.
BYTES = {("lora", "adamw"): 4, ("full", "adamw"): 16, ("full", "sgd"): 8}
ACTIVATIONS = 3 * 10**9  # of a step, roughly, on the largest shape: what has to stay free beside the weights

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How to measure."""

    model: Path | None = None  # a checkpoint's folder; None: the random one of `shape`
    shape: Shape = field(default_factory=Shape)
    methods: tuple[str, ...] = METHODS
    peer: str | None = None  # "transformers" or "none"; None: transformers if it and peft are installed
    repeats: int = 3  # turns of each side, each a new process with one step to warm up and `steps` that count
    steps: int = 3
    quick: bool = False  # two short clips, one turn, one step
    threads: int | None = None  # of both sides; None: one a physical core

    def __post_init__(self) -> None:
        for name in ("repeats", "steps", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; expected at least 1.")
        if self.peer is not None and self.peer not in PEERS:
            raise ConfigError(f"peer is {self.peer!r}; bench train expects one of {', '.join(PEERS)}.")
        if not self.methods or set(self.methods) - set(METHODS):
            raise ConfigError(f"methods is {','.join(self.methods)!r}; expected some of {','.join(METHODS)}.")
        if self.model is not None and not (self.model / CONFIG_FILE).is_file():
            raise ConfigError(f"{self.model} has no {CONFIG_FILE}; expected the folder of a Qwen2-Audio checkpoint.")
        if self.model is not None and random_checkpoint.scheme_of(self.model) != "fp32":
            raise ConfigError(f"{self.model} is quantised; bench train measures plain checkpoints.")

    @property
    def label(self) -> str:
        """What the names of all rows begin with."""
        if self.model is None:
            return self.shape.label
        return "nano" if self.model.resolve() == nano_path().resolve() else "checkpoint"


def run(options: Options, progress: Progress = lambda line: None) -> Report:
    """Measure. Takes minutes on the default shape, and wants the machine for itself.

    Raises:
        ConfigError: the peer is asked for and not installed.
        CapacityError: memory or disk have no room.
        Qwen2AudioError: a side failed; the message is its own.
    """
    sides = ["ours", *_peers(options)]
    folder = options.model or random_checkpoint.ensure(options.shape, progress=progress)
    threads = options.threads or machine.physical_cores()
    peer = f"transformers {version('transformers')} + peft {version('peft')}" if len(sides) > 1 else None
    about = machine.describe(threads) | {
        "ours": version("qwen2-audio"),
        "peer": peer,
        "checkpoint": f"{folder.name}, {random_checkpoint.num_parameters(folder) / 1e6:,.0f} M parameters",
        "dtype": "fp32",
    }
    rows: list[Row] = []
    for method in options.methods:
        rows += measure(options, method, sides, folder, threads, progress)
    return Report(about, rows)


def measure(
    options: Options, method: str, sides: list[str], folder: Path, threads: int, progress: Progress
) -> list[Row]:
    """Rate and peak memory of one method's step."""
    optimiser = choose_optimiser(method, random_checkpoint.num_parameters(folder))
    seconds = QUICK_SECONDS if options.quick else SECONDS
    turns, steps = (1, 1) if options.quick else (options.repeats, options.steps)
    rates: list[list[Any]] = [[] for _ in sides]
    peaks: list[list[Any]] = [[] for _ in sides]
    losses: list[list[Any]] = [[] for _ in sides]
    for turn in range(turns):
        for number, side in enumerate(sides):
            progress(f"{method} step, {side}: {turn + 1} of {turns}")
            with Worker(side, threads, module=WORKERS[side]) as worker:
                worker.ask("load", folder=str(folder), method=method, optimiser=optimiser, seconds=seconds)
                losses[number] = worker.ask("step")["check"]  # before any update: both must have the same
                step_seconds = [worker.ask("step")["value"] for _ in range(steps)]
                rates[number] += [positions(seconds) / value for value in step_seconds]
                peaks[number].append(worker.ask("memory")["value"])
    name = f"{options.label}.train.{method}"
    note = f"{optimiser}, batch of clips of {', '.join(f'{value:g}' for value in seconds)} s"
    rate = row_with_peer(f"{name}.rate", "tokens/s", rates, losses)
    peak = row_with_peer(f"{name}.peak_gb", "GB", peaks, [[] for _ in sides])
    return [replace(rate, note=f"{note}; loss: {rate.note}" if rate.note else note), replace(peak, note=note)]


def positions(seconds: list[float]) -> int:
    """What a step works on, padding not counted: prompt, clip and answer of each row."""
    text_positions = len(question_ids(0, vocab_size=10**6, audio_id=10**6))
    return sum(text_positions + audio_tokens(length) + ANSWER_TOKENS for length in seconds)


def choose_optimiser(method: str, parameters: int) -> str:
    """AdamW, or plain gradient descent on both sides where the moments of a full step have no room.

    Raises CapacityError where not even that has.
    """
    available = available_bytes()
    adamw = BYTES[method, "adamw"] * parameters + ACTIVATIONS
    if method == "lora" or available is None or adamw <= available:
        require_memory(adamw - ACTIVATIONS, f"A {method} step")
        return "adamw"
    require_memory(BYTES[method, "sgd"] * parameters, f"A {method} step without moments")
    return "sgd"


def _peers(options: Options) -> list[str]:
    missing = [name for name in ("transformers", "peft") if find_spec(name) is None]
    if options.peer == "transformers" and missing:
        raise ConfigError(
            f"bench train compares with transformers and peft, but finds no {' and no '.join(missing)}; install "
            "'qwen2-audio[oracles]', or use --peer none."
        )
    return [] if missing or options.peer == "none" else ["transformers"]
