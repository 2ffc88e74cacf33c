"""`python -m benchmarks structured`: what it costs to hold answers to schemas and grammars.

structured.overhead_pct        of a decode step of 16 greedy answers, where the grammar allows all they would say
structured.overhead_worst_pct  where it refuses every token that they would say, and allows nearly all others
structured.compile_ms          from a schema's first use to its first mask
structured.setup_s             the tokenizer's, once a server
decide.ratio, embed.batch_equal   as `decide_rows` says
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from qwen2_audio.bench import machine
from qwen2_audio.bench.output import SILENT, Progress
from qwen2_audio.bench.report import Report, Row
from qwen2_audio.engine.engine import EngineSettings
from qwen2_audio.engine.request import RequestHandle
from qwen2_audio.engine.structured.grammar import Grammars
from qwen2_audio.errors import ConfigError
from qwen2_audio.evaluate import random_checkpoint
from qwen2_audio.types import SamplingParams

from ..harness.engine_prompts import random_text_prompt
from ..harness.rows import chosen, row_of
from ..harness.timed_engine import ModelClock, TimedEngine
from .decide_rows import decide_row, embed_row
from .schemas import schemas
from .session import Session
from .vocabulary import WordTokenizer

RUNNING, POSITIONS = 16, 235  # answers at a time; of their prompts, as many as a clip of 8.5 s has
ANYTHING = r"(?s:.*)"
_WARM_UP = 3  # steps that are not counted


def overhead_row(session: Session, name: str, *, refused: bool) -> Row:
    """structured.overhead_pct, or with `refused` structured.overhead_worst_pct."""
    steps, percents = 8 if session.quick else 48, []
    for turn in range(session.repeats):
        session.progress(f"{name}: {turn + 1} of {session.repeats}")
        percents.append(overhead(session.model, session.tokenizer, session.clock, steps, refused=refused))
    note = f"of a step with {RUNNING} running, beside what a free one takes"
    return row_of(name, "%", percents, note + ("; every token refused" if refused else ""))


def compile_row(session: Session, name: str) -> Row:
    """structured.compile_ms"""
    session.progress(name)
    return first_uses(session.grammars[0], session.tokenizer.end, 5 if session.quick else 50, name)


def setup_row(session: Session, name: str) -> Row:
    """structured.setup_s"""
    session.progress(name)
    return row_of(name, "s", [session.grammars[1]], f"{session.tokenizer.size:,} tokens")


ROWS: dict[str, Callable[[Session, str], Row]] = {
    "structured.overhead_pct": partial(overhead_row, refused=False),
    "structured.overhead_worst_pct": partial(overhead_row, refused=True),
    "structured.compile_ms": compile_row,
    "structured.setup_s": setup_row,
    "decide.ratio": decide_row,
    "embed.batch_equal": embed_row,
}


@dataclass(frozen=True)
class Options:
    """How to measure."""

    rows: tuple[str, ...] = tuple(ROWS)  # names, with or without "structured." in front
    model: Path | None = None  # a checkpoint's folder; None: the random 1 B one in int4, with `quick` nano
    repeats: int = 3
    quick: bool = False  # few steps, few schemas
    threads: int | None = None  # None: one a physical core

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", chosen(self.rows, ROWS, "structured."))
        for name in ("repeats", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; expected at least 1.")


def run(options: Options, progress: Progress = SILENT) -> Report:
    """Measure the rows that are asked for, one after another; `progress` keeps each as it is there. Raises ConfigError
    without llguidance, CapacityError where memory or disk have no room."""
    threads = options.threads or machine.physical_cores()
    session = Session(options.model, options.repeats, options.quick, threads, progress)
    about: dict[str, Any] = machine.describe(session.threads) | {"ours": version("qwen2-audio"), "peer": None}
    about |= {"checkpoint": session.folder.name, "dtype": random_checkpoint.scheme_of(session.folder)}
    report = Report(about, [])
    for name, measure in ROWS.items():
        if name in options.rows:
            report.rows.append(measure(session, name))
            progress.keep(report)
    return report


def overhead(model: Any, tokenizer: WordTokenizer, clock: ModelClock, steps: int, *, refused: bool) -> float:
    """Percent of a step that held answers take longer than free ones, beside the language model. Their steps take
    turns, so that both meet the same machine."""
    with _saying(model.language_model, tokenizer.never if refused else None):
        free, held = (_running(model, tokenizer, clock, regex) for regex in (None, ANYTHING))
        for _ in range(_WARM_UP + steps):
            free.step()
            held.step()
    pairs = list(zip(free.steps[-steps:], held.steps[-steps:], strict=True))
    assert all(step.decode == RUNNING and not step.prefill for pair in pairs for step in pair), "an answer has ended"
    extra = [(b.seconds - b.model_seconds) - (a.seconds - a.model_seconds) for a, b in pairs]
    return 100 * statistics.median(extra) / statistics.median(a.seconds for a, _ in pairs)


def first_uses(grammars: Grammars, end: int, count: int, name: str) -> Row:
    """Of `count` schemas, each used once by answers that end at the token `end`."""
    milliseconds, ends = [], frozenset([end])
    for schema in schemas(count):
        text = json.dumps(schema)
        started = time.perf_counter()
        grammars.matcher(("json_schema", text), ends).allowed()
        milliseconds.append(1000 * (time.perf_counter() - started))
    note = f"{count} schemas; the slowest {max(milliseconds):.1f} ms"
    return row_of(name, "ms", milliseconds, note)


def _running(model: Any, tokenizer: WordTokenizer, clock: ModelClock, regex: str | None) -> TimedEngine:
    """An engine in which RUNNING answers decode, held to `regex`."""
    settings = EngineSettings(kv_tokens=2 * RUNNING * POSITIONS, max_num_batched_tokens=1024)
    engine = TimedEngine(model, clock, settings, tokenizer)
    params = SamplingParams(temperature=0, max_tokens=POSITIONS // 2, regex=regex)
    for number in range(RUNNING):
        prompt = random_text_prompt(model.config, POSITIONS, number)
        engine.submit(prompt, params, RequestHandle(1, engine.cancel))
    while not engine.steps or engine.steps[-1].prefill or engine.steps[-1].running < RUNNING:
        engine.step()
    return engine


@contextmanager
def _saying(module: torch.nn.Module, token: int | None) -> Iterator[None]:
    """Make `token` the likeliest one of all positions, unless it is None."""

    def raise_logits(_: torch.nn.Module, arguments: Any, out: Any) -> None:
        if token is not None:
            out.logits[..., token] = 1e4

    hook = module.register_forward_hook(raise_logits)
    try:
        yield
    finally:
        hook.remove()
