"""`python -m benchmarks engine`: many requests at once, next to one after another and to transformers' padded batch.

Random weights would end answers anywhere, so no answer ends early: each has exactly its number of new tokens.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from qwen2_audio.bench import machine
from qwen2_audio.bench.report import Report, Row
from qwen2_audio.checkpoint.locate import nano_path
from qwen2_audio.checkpoint.memory import require_memory
from qwen2_audio.errors import ConfigError
from qwen2_audio.evaluate import random_checkpoint

from ..harness.devices import require_device
from ..harness.rows import row_of
from ..harness.worker_process import Worker
from . import draft
from .options import Amounts, Options

ANSWERS = {"transcript": "the answer repeats nearly all of a text in its prompt", "chat": "prose after a question"}
LOOKUP_TOKENS = 4  # a step, at most

Progress = Callable[[str], None]
Measured = dict[str, Any]


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
    base = options.model or random_checkpoint.ensure(options.shape, progress=progress)
    plain = options.format in ("fp32", "bf16", random_checkpoint.scheme_of(base))
    folder = base if plain else random_checkpoint.quantized(base, options.format, progress)
    amounts, threads = Amounts.of(options), options.threads or machine.physical_cores()
    if options.device == "cpu":
        needed = random_checkpoint.nbytes(base) if peer else 0
        require_memory(max(needed, random_checkpoint.nbytes(folder)), "Loading the checkpoint to measure")
    rows = _measure_ours(options, folder, amounts, threads, progress)
    if peer:
        rows.append(_measure_peer(options, base, amounts, threads, (rows, progress)))
    rows += _measure_nano(options, amounts, threads, progress)
    about = machine.describe(threads) | {
        "ours": version("qwen2-audio"),
        "peer": f"transformers {version('transformers')}" if peer else None,
        "checkpoint": f"{folder.name}, {random_checkpoint.num_parameters(base) / 1e6:,.0f} M parameters",
        "dtype": f"{options.format} on {options.device}",
    }
    return Report(about, rows)


def _measure_ours(options: Options, folder: Path, amounts: Amounts, threads: int, progress: Progress) -> list[Row]:
    with Worker("ours", threads, module="engine.worker") as worker:
        progress(f"loading {folder}")
        worker.ask("load", folder=str(folder), kv_tokens=amounts.kv_tokens, **options.load)
        rows = decode_rows(worker, amounts, progress)
        rows += latency_rows(worker, amounts, progress)
        rows += lookup_rows(worker, amounts, progress)
        draft_folder = draft.make(folder, options.format, progress)
        rows += draft.draft_rows(worker, draft_folder, amounts.short_turns, amounts.answer, progress)
        runs = run_both_ways(worker, amounts, progress)
        rows += [
            row_of("engine.run16_s", "s", runs.together),
            row_of("engine.alone16_s", "s", runs.alone),
            row_of("engine.run16_speedup", "x faster", runs.speedup, runs.note),
        ]
        rows.append(row_of("engine.peak_gb", "GB", [worker.ask("memory")["value"]]))
    return rows


def decode_rows(worker: Worker, amounts: Amounts, progress: Progress) -> list[Row]:
    """Tokens a second by how many run; how much better 16 are than 1; what a step takes beside the model."""
    turns_of: dict[int, list[Measured]] = {count: [] for count in amounts.running}
    prefill_rates = []
    for turn in range(amounts.short_turns):
        progress(f"decode with {', '.join(map(str, amounts.running))} running: {turn + 1} of {amounts.short_turns}")
        order = {"running": amounts.running, "lengths": amounts.contexts, "steps": amounts.steps, "variant": turn}
        for measured in worker.ask("decode", **order)["counts"]:
            turns_of[measured["running"]].append(measured)
        prefill_rates.append(worker.ask("prefill", length=amounts.prompt, variant=turn)["value"])
    rates = {count: [measured["rate"] for measured in turns] for count, turns in turns_of.items()}
    rows = [row_of(f"engine.decode{count}", "tokens/s", rates[count]) for count in reversed(amounts.running)]
    rows.append(row_of("engine.prefill", "tokens/s", prefill_rates, f"a prompt of {amounts.prompt} positions"))
    gains = [with_16 / with_1 for with_16, with_1 in zip(rates[16], rates[1], strict=True)]
    rows.append(row_of("engine.decode16_speedup", "x faster", gains, "16 running over 1"))
    percents = {
        count: [100 * measured["beside"] / measured["step"] for measured in turns_of[count]] for count in (16, 1)
    }
    note = f"of a step with 16 running, beside the language model; {statistics.median(percents[1]):.1f} % with 1"
    rows.append(row_of("engine.overhead_pct", "%", percents[16], note))
    return rows


def latency_rows(worker: Worker, amounts: Amounts, progress: Progress) -> list[Row]:
    """First tokens: of an idle engine, behind a long clip, and of a second turn."""
    short, long, behind, chunks, turn_pairs, too_late = [], [], [], [], [], 0
    for turn in range(amounts.short_turns):
        progress(f"first tokens: {turn + 1} of {amounts.short_turns}")
        variant = 10 + turn
        short.append(worker.ask("first_token", seconds=3.0, variant=variant)["value"])
        long_alone = worker.ask("first_token", seconds=amounts.long, variant=variant)
        long.append(long_alone["value"])
        chunks.append(long_alone["chunk"])
        # A third, half, two thirds of the way into the long clip: in its encoder, and in its prefill.
        wait = long_alone["value"] * (2 + turn % 3) / 6
        reply = worker.ask("first_token_behind", seconds=3.0, long=amounts.long, wait=wait, variant=20 + turn)
        behind.append(reply["value"])
        too_late += reply["late"]
        turn_pairs.append(worker.ask("turns", seconds=10.0, new_tokens=16, variant=30 + turn)["value"])
    idle, chunk = statistics.median(short), statistics.median(chunks)
    note = f"{statistics.median(behind):.3f} s behind a clip of {amounts.long:g} s; idle {idle:.3f}, chunk {chunk:.3f}"
    note += f"; {too_late} came too late" if too_late else ""
    return [
        row_of("engine.ttft_3s", "s", short),
        row_of(f"engine.ttft_{amounts.long:g}s", "s", long),
        row_of("engine.short_ttft_ratio", "x", [seconds / (2 * idle + chunk) for seconds in behind], note),
        row_of("engine.second_turn_s", "s", [second for _, second in turn_pairs]),
        row_of("engine.second_turn_ratio", "x faster", [first / second for first, second in turn_pairs]),
    ]


def lookup_rows(worker: Worker, amounts: Amounts, progress: Progress) -> list[Row]:
    """What prompt lookup gains on two kinds of answers, which the model is made to give."""
    rows = []
    for kind, description in ANSWERS.items():
        progress(f"prompt lookup on a {kind}")
        gains, accepted = [], 0.0
        for _ in range(amounts.short_turns):
            order = {"kind": kind, "max_tokens": amounts.answer}
            plain = worker.ask("speculate", draft_tokens=0, **order)
            with_lookup = worker.ask("speculate", draft_tokens=LOOKUP_TOKENS, **order)
            gains.append(with_lookup["value"] / plain["value"])
            accepted = with_lookup["accepted"]
        note = f"{description}; {accepted:.0%} of its tokens were drafted"
        rows.append(row_of(f"engine.lookup_{kind}_speedup", "x faster", gains, note))
    return rows


def run_both_ways(worker: Worker, amounts: Amounts, progress: Progress) -> Runs:
    """The requests at once and one after another, in turns; a turn has clips of its own, or caches would answer."""
    order = {"seconds": amounts.clips, "new_tokens": amounts.new_tokens}
    worker.ask("alone", seconds=amounts.clips[:1], variant=50, new_tokens=2)  # warm-up
    together, alone, same = [], [], 0
    for turn in range(amounts.turns):
        progress(f"{len(amounts.clips)} requests, at once and one after another: {turn + 1} of {amounts.turns}")
        at_once = worker.ask("together", variant=40 + turn, **order)
        in_turn = worker.ask("alone", variant=40 + turn, **order)
        together.append(at_once["value"])
        alone.append(in_turn["value"])
        same += sum(a == b for a, b in zip(at_once["check"], in_turn["check"], strict=True))
    return Runs(together, alone, f"{same} of {amounts.turns * len(amounts.clips)} answers the same, every token")


def _measure_peer(
    options: Options, base: Path, amounts: Amounts, threads: int, so_far: tuple[list[Row], Progress]
) -> Row:
    """How many times faster the same requests were answered than by the peer, in one turn of its own process."""
    rows, progress = so_far
    dtype = "bfloat16" if options.device == "cuda" else "float32"
    with Worker("transformers", threads, module="peers.transformers_batch") as worker:
        progress(f"transformers: loading {base}")
        worker.ask("load", folder=str(base), device=options.device, dtype=dtype)
        progress(f"transformers: {len(amounts.clips)} requests in one padded batch")
        theirs = worker.ask("together", seconds=amounts.clips, new_tokens=amounts.new_tokens, variant=40)
        peak = worker.ask("memory")["value"]
    (ours,) = [row for row in rows if row.name == "engine.run16_s"]
    assert ours.value is not None
    note = f"{ours.value:.1f} s in {options.format} against {theirs['value']:.1f} s in {dtype}"
    note += "" if peak is None else f" and {peak:.1f} GB"
    return row_of("engine.vs_transformers", "x faster", [theirs["value"] / ours.value], note)


def _measure_nano(options: Options, amounts: Amounts, threads: int, progress: Progress) -> list[Row]:
    """The bundled checkpoint in fp32: so small that the time beside the model shows."""
    amounts = replace(amounts, turns=amounts.short_turns, running=[16, 1], steps=8 * amounts.steps)
    with Worker("ours", threads, module="engine.worker") as worker:
        load = {"device": options.device, "dtype": "float32"}
        worker.ask("load", folder=str(nano_path()), kv_tokens=amounts.kv_tokens, **load)
        progress("nano")
        runs = run_both_ways(worker, amounts, lambda line: progress(f"nano: {line}"))
        order = {"running": amounts.running, "lengths": amounts.contexts, "steps": amounts.steps}
        turns = [worker.ask("decode", variant=turn, **order)["counts"] for turn in range(amounts.short_turns)]
        progress("nano: a draft")
        draft_row = draft.nano_row(worker, amounts.short_turns)
    with_16, with_1 = ([1000 * counts[index]["beside"] for counts in turns] for index in range(2))
    note = f"of a step with 16 running, beside the language model; {statistics.median(with_1):.2f} ms with 1"
    return [
        row_of("engine.nano16_speedup", "x faster", runs.speedup, runs.note),
        row_of("engine.nano_overhead_ms", "ms", with_16, note),
        draft_row,
    ]


def _peer(options: Options) -> bool:
    installed = find_spec("transformers") is not None
    if options.peer == "transformers" and not installed:
        raise ConfigError(
            "transformers is not installed; install 'qwen2-audio[oracles]' to compare with it, or use --peer none."
        )
    if options.peer == "transformers" and options.model and random_checkpoint.scheme_of(options.model) != "fp32":
        raise ConfigError("transformers does not read our quantised checkpoints; use --peer none.")
    readable = options.model is None or random_checkpoint.scheme_of(options.model) == "fp32"
    return options.peer == "transformers" or (options.peer is None and installed and readable and not options.quick)
