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
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch

from qwen2_audio.bench import machine
from qwen2_audio.bench.report import Report, Row
from qwen2_audio.checkpoint.locate import nano_path
from qwen2_audio.checkpoint.memory import require_memory
from qwen2_audio.engine.engine import EngineSettings
from qwen2_audio.engine.request import RequestHandle
from qwen2_audio.engine.structured.grammar import Grammars
from qwen2_audio.errors import ConfigError
from qwen2_audio.evaluate import random_checkpoint
from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration
from qwen2_audio.text.tokenizer import Tokenizer
from qwen2_audio.types import SamplingParams

from ..harness.engine_prompts import random_text_prompt
from ..harness.rows import row_of
from ..harness.timed_engine import ModelClock, TimedEngine
from .decide_rows import decide_rows
from .schemas import schemas
from .vocabulary import WordTokenizer

RUNNING, POSITIONS = 16, 235  # answers at a time; of their prompts, as many as a clip of 8.5 s has
ANYTHING = r"(?s:.*)"
_WARM_UP = 3  # steps that are not counted


@dataclass(frozen=True)
class Options:
    """How to measure."""

    model: Path | None = None  # a checkpoint's folder; None: the random 1 B one in int4, with `quick` nano
    repeats: int = 3
    quick: bool = False  # few steps, few schemas
    threads: int | None = None  # None: one a physical core

    def __post_init__(self) -> None:
        for name in ("repeats", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; expected at least 1.")


def run(options: Options, progress: Callable[[str], None] = lambda line: None) -> Report:
    """Measure. Raises ConfigError without llguidance, CapacityError where memory or disk have no room."""
    threads = options.threads or machine.physical_cores()
    torch.set_num_threads(threads)
    folder = _folder(options, progress)
    require_memory(random_checkpoint.nbytes(folder), "Loading the checkpoint to measure")
    model = Qwen2AudioForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    tokenizer = WordTokenizer(model.config.text_config.vocab_size)
    model.generation_config.eos_token_id = tokenizer.end
    clock = ModelClock(model.language_model, model.device)
    steps, rows = 8 if options.quick else 48, list[Row]()
    for name, refused in (("structured.overhead_pct", False), ("structured.overhead_worst_pct", True)):
        percents = []
        for turn in range(options.repeats):
            progress(f"{name}: {turn + 1} of {options.repeats}")
            percents.append(overhead(model, tokenizer, clock, steps, refused=refused))
        note = f"of a step with {RUNNING} running, beside what a free one takes"
        rows.append(row_of(name, "%", percents, note + ("; every token refused" if refused else "")))
    progress("schemas")
    rows += first_uses(tokenizer, model.config.text_config.vocab_size, 5 if options.quick else 50)
    rows += decide_rows(model, tokenizer, repeats=options.repeats, quick=options.quick, progress=progress)
    about: dict[str, Any] = machine.describe(threads) | {"ours": version("qwen2-audio"), "peer": None}
    about |= {"checkpoint": folder.name, "dtype": random_checkpoint.scheme_of(folder)}
    return Report(about, rows)


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


def first_uses(tokenizer: WordTokenizer, vocabulary: int, count: int) -> list[Row]:
    """Of `count` schemas, each used once; and the set-up before them."""
    grammars, ends = Grammars(cast(Tokenizer, tokenizer), vocabulary), frozenset([tokenizer.end])
    started = time.perf_counter()
    grammars.set_up(ends)
    setup = time.perf_counter() - started
    milliseconds = []
    for schema in schemas(count):
        text = json.dumps(schema)
        started = time.perf_counter()
        grammars.matcher(("json_schema", text), ends).allowed()
        milliseconds.append(1000 * (time.perf_counter() - started))
    note = f"{count} schemas; the slowest {max(milliseconds):.1f} ms"
    return [
        row_of("structured.compile_ms", "ms", milliseconds, note),
        row_of("structured.setup_s", "s", [setup], f"{vocabulary:,} tokens"),
    ]


def _folder(options: Options, progress: Callable[[str], None]) -> Path:
    if options.model is not None:
        return options.model
    if options.quick:
        return nano_path()
    base = random_checkpoint.ensure(random_checkpoint.Shape(), progress=progress)
    return random_checkpoint.quantized(base, "int4", progress)


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
