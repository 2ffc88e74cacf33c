"""`bench engine`: many requests at once, next to one after another and to transformers' padded batch.

Random weights would end answers anywhere, so no answer ends early: each has exactly its number of new tokens.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from qwen2_audio.api.loading import nano_path
from qwen2_audio.bench import machine
from qwen2_audio.bench.report import Report, Row
from qwen2_audio.checkpoint.config import CONFIG_FILE
from qwen2_audio.checkpoint.memory import require_memory
from qwen2_audio.errors import ConfigError
from qwen2_audio.model.paged import BLOCK

from ..harness import random_checkpoint as checkpoint
from ..harness.bars import bar
from ..harness.random_checkpoint import Shape
from ..harness.worker_process import Worker
from ..model.device_run import require_device
from . import draft as engine_draft
from .scripts import clip_lengths
from .worker import SPARE

PEERS = ("transformers", "none")
FORMATS = ("fp32", "bf16", "int8", "int4")
DEVICES = ("cpu", "cuda")
DTYPES = {"bf16": "bfloat16"}  # of weights that are not quantised; the others compute in float32
KINDS = {"transcript": "the answer repeats nearly all of a text in its prompt", "chat": "prose after a question"}
GUESSES = 4  # a step

Progress = Callable[[str], None]
Measured = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """How to measure."""

    model: Path | None = None  # a checkpoint's folder; None: the random one of `shape`
    shape: Shape = field(default_factory=Shape)
    formats: tuple[str, ...] = ("int4",)  # one
    device: str = "cpu"
    peer: str | None = None  # "transformers" or "none"; None: transformers if it is installed and not `quick`
    repeats: int = 3  # of each; at most 2 of the runs of 16 requests, 1 of the peer's
    quick: bool = False  # short clips, few tokens, one turn
    threads: int | None = None  # of all sides; None: one a physical core

    def __post_init__(self) -> None:
        for name in ("repeats", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; expected at least 1.")
        for name, known in {"peer": PEERS, "device": DEVICES}.items():
            if getattr(self, name) not in (None, *known):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; bench engine expects one of {', '.join(known)}.")
        if len(self.formats) != 1 or self.formats[0] not in FORMATS:
            raise ConfigError(f"format is {','.join(self.formats)!r}; bench engine expects one of {','.join(FORMATS)}.")
        if self.model is not None and not (self.model / CONFIG_FILE).is_file():
            raise ConfigError(f"{self.model} has no {CONFIG_FILE}; expected the folder of a Qwen2-Audio checkpoint.")
        stored = "fp32" if self.model is None else checkpoint.scheme_of(self.model)
        if stored not in ("fp32", self.format):
            raise ConfigError(f"{self.model} is quantised to {stored}; expected --format {stored} for it.")

    @property
    def format(self) -> str:
        return self.formats[0]

    @property
    def load(self) -> Measured:
        """What a worker needs beside the folder."""
        return {"device": self.device, "dtype": DTYPES.get(self.format, "float32")}


@dataclass(frozen=True)
class Amounts:
    """How much of everything."""

    clips: list[float]  # seconds, of the requests that come together
    new_tokens: int
    turns: int  # of what takes long
    short_turns: int
    running: list[int]  # most first
    steps: int  # of decoding, for each of `running`
    long: float  # seconds of the clip that a short one comes behind
    prompt: int  # positions of the prompt whose prefill is timed
    answer: int  # tokens at most of the answers that are guessed at

    @classmethod
    def of(cls, options: Options) -> Amounts:
        if options.quick:
            return cls(clip_lengths(16, 1, 2), 16, 1, 1, [16, 1], 8, 10.0, 256, 32)
        turns = min(options.repeats, 2)
        return cls(clip_lengths(16, 2, 15), 64, turns, options.repeats, [32, 16, 4, 1], 24, 30.0, 512, 128)

    @property
    def contexts(self) -> list[int]:
        """Positions of text for each that runs: those of the clips, in an order in which any few are mixed."""
        lengths = [23 + round(25 * seconds) for seconds in self.clips]
        mixed = [lengths[place * 7 % len(lengths)] for place in range(len(lengths))]
        return [mixed[place % len(mixed)] for place in range(self.running[0])]


@dataclass(frozen=True)
class Runs:
    """The 16 requests, turn by turn."""

    together: list[float]  # seconds
    alone: list[float]
    note: str  # whether both gave the same tokens

    @property
    def speedup(self) -> list[float]:
        return [alone / together for alone, together in zip(self.alone, self.together, strict=True)]


def run(options: Options, progress: Progress = lambda line: None) -> Report:
    """Measure. Takes minutes on the default shape, and wants the machine for itself.

    Raises:
        ConfigError: the peer is asked for and not installed.
        CapacityError: memory or disk have no room.
        Qwen2AudioError: a side failed; the message is its own.
    """
    require_device(options.device)
    peer = _peer(options)
    base = options.model or checkpoint.ensure(options.shape, progress=progress)
    plain = options.format in ("fp32", "bf16", checkpoint.scheme_of(base))
    folder = base if plain else checkpoint.quantized(base, options.format, progress)
    amounts, threads = Amounts.of(options), options.threads or machine.physical_cores()
    if options.device == "cpu":
        needed = checkpoint.nbytes(base) if peer else 0
        require_memory(max(needed, checkpoint.nbytes(folder)), "Loading the checkpoint to measure")
    rows = _measure_ours(options, folder, amounts, threads, progress)
    if peer:
        rows.append(_measure_peer(options, base, amounts, threads, (rows, progress)))
    rows += _measure_nano(options, amounts, threads, progress)
    about = machine.describe(threads) | {
        "ours": version("qwen2-audio"),
        "peer": f"transformers {version('transformers')}" if peer else None,
        "checkpoint": f"{folder.name}, {checkpoint.num_parameters(base) / 1e6:,.0f} M parameters",
        "dtype": f"{options.format} on {options.device}",
    }
    return Report(about, rows)


def _measure_ours(options: Options, folder: Path, amounts: Amounts, threads: int, progress: Progress) -> list[Row]:
    with Worker("ours", threads, module="engine.worker") as worker:
        progress(f"loading {folder}")
        worker.ask("load", folder=str(folder), kv_tokens=_kv_tokens(amounts), **options.load)
        rows = decode_rows(worker, amounts, progress)
        rows += latency_rows(worker, amounts, progress)
        rows += guess_rows(worker, amounts, progress)
        small = engine_draft.make(folder, options.format, progress)
        rows += draft_rows(engine_draft.gains(worker, small, amounts.short_turns, amounts.answer, progress))
        runs = both_ways(worker, amounts, progress)
        rows += [
            summary("engine.run16_s", "s", runs.together),
            summary("engine.alone16_s", "s", runs.alone),
            summary("engine.run16_speedup", "x faster", runs.speedup, runs.note),
        ]
        rows.append(summary("engine.peak_gb", "GB", [worker.ask("memory")["value"]]))
    return rows


def _kv_tokens(amounts: Amounts) -> int:
    """Room for all prompts and what their answers have when they are cancelled."""
    answer = len(amounts.running) * (amounts.steps + 1) + SPARE
    return max(sum(amounts.contexts) + amounts.running[0] * (answer + 2 * BLOCK), 4096)


def decode_rows(worker: Worker, amounts: Amounts, progress: Progress) -> list[Row]:
    """Tokens a second by how many run; how much better 16 are than 1; what a step takes beside the model."""
    found: dict[int, list[Measured]] = {count: [] for count in amounts.running}
    prefills = []
    for turn in range(amounts.short_turns):
        progress(f"decode with {', '.join(map(str, amounts.running))} running: {turn + 1} of {amounts.short_turns}")
        asked = {"running": amounts.running, "lengths": amounts.contexts, "steps": amounts.steps, "variant": turn}
        for one in worker.ask("decode", **asked)["found"]:
            found[one["running"]].append(one)
        prefills.append(worker.ask("prefill", length=amounts.prompt, variant=turn)["value"])
    rates = {count: [one["rate"] for one in some] for count, some in found.items()}
    rows = [summary(f"engine.decode{count}", "tokens/s", rates[count]) for count in reversed(amounts.running)]
    rows.append(summary("engine.prefill", "tokens/s", prefills, f"a prompt of {amounts.prompt} positions"))
    gains = [many / one for many, one in zip(rates[16], rates[1], strict=True)]
    rows.append(summary("engine.decode16_speedup", "x faster", gains, "16 running over 1"))
    shares = [100 * one["beside"] / one["step"] for one in found[16]]
    single = statistics.median(100 * one["beside"] / one["step"] for one in found[1])
    note = f"of a step with 16 running, beside the language model; {single:.1f} % with 1"
    rows.append(summary("engine.overhead_pct", "%", shares, note))
    return rows


def latency_rows(worker: Worker, amounts: Amounts, progress: Progress) -> list[Row]:
    """First tokens: of an idle engine, behind a long clip, and of a second turn."""
    short, long, behind, chunks, turns, late = [], [], [], [], [], 0
    for turn in range(amounts.short_turns):
        progress(f"first tokens: {turn + 1} of {amounts.short_turns}")
        ask = {"variant": 10 + turn}
        short.append(worker.ask("first_token", seconds=3.0, **ask)["value"])
        alone = worker.ask("first_token", seconds=amounts.long, **ask)
        long.append(alone["value"])
        chunks.append(alone["chunk"])
        # A third, half, two thirds of the way into the long one, so that it is met in its encoder and in its prefill.
        wait = alone["value"] * (2 + turn % 3) / 6
        met = worker.ask("first_token_behind", seconds=3.0, long=amounts.long, wait=wait, variant=20 + turn)
        behind.append(met["value"])
        late += met["late"]
        turns.append(worker.ask("turns", seconds=10.0, new_tokens=16, variant=30 + turn)["value"])
    idle, chunk = statistics.median(short), statistics.median(chunks)
    note = f"{statistics.median(behind):.3f} s behind a clip of {amounts.long:g} s; idle {idle:.3f}, chunk {chunk:.3f}"
    note += f"; {late} came too late" if late else ""
    return [
        summary("engine.ttft_3s", "s", short),
        summary(f"engine.ttft_{amounts.long:g}s", "s", long),
        summary("engine.short_ttft_ratio", "x", [taken / (2 * idle + chunk) for taken in behind], note),
        summary("engine.second_turn_s", "s", [second for _, second in turns]),
        summary("engine.second_turn_ratio", "x faster", [first / second for first, second in turns]),
    ]


def guess_rows(worker: Worker, amounts: Amounts, progress: Progress) -> list[Row]:
    """What prompt lookup gains on two kinds of answers, which the model is made to say."""
    rows = []
    for kind, what in KINDS.items():
        progress(f"prompt lookup on a {kind}")
        gains, accepted = [], 0.0
        for _ in range(amounts.short_turns):
            plain = worker.ask("guessing", kind=kind, guesses=0, most=amounts.answer)["value"]
            guessed = worker.ask("guessing", kind=kind, guesses=GUESSES, most=amounts.answer)
            gains.append(guessed["value"] / plain)
            accepted = guessed["accepted"]
        note = f"{what}; {accepted:.0%} of its tokens were guessed"
        rows.append(summary(f"engine.lookup_{kind}_speedup", "x faster", gains, note))
    return rows


def draft_rows(gains: list[engine_draft.Gain]) -> list[Row]:
    """What drafts gain, as rows."""
    return [summary(gain.name, "x faster", gain.values, gain.note) for gain in gains]


def both_ways(worker: Worker, amounts: Amounts, progress: Progress) -> Runs:
    """The requests at once and one after another, in turns; a turn has clips of its own, or caches would answer."""
    asked = {"seconds": amounts.clips, "new_tokens": amounts.new_tokens}
    worker.ask("alone", seconds=amounts.clips[:1], variant=50, new_tokens=2)  # warm-up
    together, alone, same = [], [], 0
    for turn in range(amounts.turns):
        progress(f"{len(amounts.clips)} requests, at once and one after another: {turn + 1} of {amounts.turns}")
        at_once = worker.ask("together", variant=40 + turn, **asked)
        in_turn = worker.ask("alone", variant=40 + turn, **asked)
        together.append(at_once["value"])
        alone.append(in_turn["value"])
        same += sum(one == other for one, other in zip(at_once["check"], in_turn["check"], strict=True))
    return Runs(together, alone, f"{same} of {amounts.turns * len(amounts.clips)} answers the same, every token")


def _measure_peer(
    options: Options, base: Path, amounts: Amounts, threads: int, so_far: tuple[list[Row], Progress]
) -> Row:
    """How many times faster the same requests were answered than by the peer, in one turn of its own process."""
    rows, progress = so_far
    dtype = "bfloat16" if options.device == "cuda" else "float32"
    with Worker("transformers", threads, module="engine.worker") as worker:
        progress(f"transformers: loading {base}")
        worker.ask("load", folder=str(base), device=options.device, dtype=dtype)
        progress(f"transformers: {len(amounts.clips)} requests in one padded batch")
        theirs = worker.ask("together", seconds=amounts.clips, new_tokens=amounts.new_tokens, variant=40)
        peak = worker.ask("memory")["value"]
    (ours,) = [row for row in rows if row.name == "engine.run16_s"]
    assert ours.value is not None
    note = f"{ours.value:.1f} s in {options.format} against {theirs['value']:.1f} s in {dtype}"
    note += "" if peak is None else f" and {peak:.1f} GB"
    return summary("engine.vs_transformers", "x faster", [theirs["value"] / ours.value], note)


def _measure_nano(options: Options, amounts: Amounts, threads: int, progress: Progress) -> list[Row]:
    """The bundled checkpoint, in fp32: so small that what is not the model shows."""
    own = replace(amounts, turns=amounts.short_turns, running=[16, 1], steps=8 * amounts.steps)
    with Worker("ours", threads, module="engine.worker") as worker:
        load = {"device": options.device, "dtype": "float32"}
        worker.ask("load", folder=str(nano_path()), kv_tokens=_kv_tokens(own), **load)
        progress("nano")
        runs = both_ways(worker, own, lambda line: progress(f"nano: {line}"))
        beside = []
        asked = {"running": own.running, "lengths": own.contexts, "steps": own.steps}
        for turn in range(own.short_turns):
            beside.append(worker.ask("decode", variant=turn, **asked)["found"])
        progress("nano: a draft")
        guessed = engine_draft.nano_gain(worker, own.short_turns)
    many, one = ([1000 * turn[place]["beside"] for turn in beside] for place in range(2))
    note = f"of a step with 16 running, beside the language model; {statistics.median(one):.2f} ms with 1"
    return [
        summary("engine.nano16_speedup", "x faster", runs.speedup, runs.note),
        summary("engine.nano_overhead_ms", "ms", many, note),
        *draft_rows([guessed]),
    ]


def summary(name: str, unit: str, values: list[Any], note: str = "") -> Row:
    """A row with the median, and the range where there are several values."""
    if None in values:  # the system does not say
        return Row(name, None, unit, limit=bar(name))
    spread = (min(values), max(values)) if len(values) > 1 else None
    return Row(name, statistics.median(values), unit, limit=bar(name), spread=spread, note=note)


def _peer(options: Options) -> bool:
    installed = find_spec("transformers") is not None
    if options.peer == "transformers" and not installed:
        raise ConfigError(
            "transformers is not installed; install 'qwen2-audio[oracles]' to compare with it, or use --peer none."
        )
    if options.peer == "transformers" and options.model and checkpoint.scheme_of(options.model) != "fp32":
        raise ConfigError("transformers does not read our quantised checkpoints; use --peer none.")
    readable = options.model is None or checkpoint.scheme_of(options.model) == "fp32"
    return options.peer == "transformers" or (options.peer is None and installed and readable and not options.quick)
