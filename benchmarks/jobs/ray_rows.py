"""`python -m benchmarks ray`: a job on a Ray of this machine against the same job in one process.

jobs.ray_efficiency     rows a second of single-core workers, one for each core, against one process with all cores
jobs.ray_overhead_ms    of a row whose answer costs nothing
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from qwen2_audio.bench import machine
from qwen2_audio.bench.report import Report, Row
from qwen2_audio.checkpoint.config import Qwen2AudioConfig
from qwen2_audio.checkpoint.locate import nano_path
from qwen2_audio.datasets.corpus import Corpus, open_corpus
from qwen2_audio.datasets.row import Row as CorpusRow
from qwen2_audio.errors import ConfigError, EvaluationError
from qwen2_audio.evaluate import random_checkpoint
from qwen2_audio.jobs.config import IN_FLIGHT, JobConfig, Sampling
from qwen2_audio.jobs.ray_runner import OnRay
from qwen2_audio.jobs.reading import AHEAD
from qwen2_audio.jobs.runner import About, InThisProcess, JobRow, Runner, Work

from ..harness.rows import row_of
from . import clips
from .stub_worker import FACTORY

_MAX_TOKENS = 16  # of each answer; a random model never ends one by itself
_FULL = 64  # outcomes of loaded workers until their engines are full, and no two answers end together
_FIRST = 500  # rows after which Ray's connections are open, and the rate is counted
SIZES, QUICK_SIZES = (192, 4000), (64, 1000)  # answers that are counted; rows that cost nothing
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "vocab.json", "merges.txt")


@dataclass(frozen=True)
class Options:
    """How much to measure."""

    quick: bool = False  # 64 answers of nano's instead of 192 of a random model of about 1 B parameters
    threads: int | None = None  # None: one a physical core

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads is {self.threads}; expected at least 1.")


def run(options: Options, progress: Callable[[str], None] = lambda line: None) -> Report:
    """Measure. Raises ConfigError without Ray, EvaluationError where a row fails."""
    cores = options.threads or machine.physical_cores()
    num_rows, num_instant = QUICK_SIZES if options.quick else SIZES
    checkpoint = nano_path() if options.quick else _checkpoint(progress)
    progress(f"{num_instant:,} rows without a model")
    rows = [overhead(num_instant)]
    progress(f"{num_rows} answers, of one process and of {cores} workers")
    rows.append(efficiency(checkpoint, num_rows, cores))
    about: dict[str, Any] = machine.describe(cores) | {"ours": version("qwen2-audio"), "peer": None}
    about |= {
        "checkpoint": f"{checkpoint.name}, {num_rows} answers of {_MAX_TOKENS} tokens, a clip each",
        "dtype": "float32",
    }
    return Report(about, rows)


def _checkpoint(progress: Callable[[str], None]) -> Path:
    """A random checkpoint of about 1 B parameters that takes nano's words: jobs need a tokenizer."""
    config = Qwen2AudioConfig.from_pretrained(nano_path())
    ids = {"vocab_size": config.text_config.vocab_size, "audio_token_index": config.audio_token_index}
    folder = random_checkpoint.ensure(replace(random_checkpoint.SHAPES["1b"], **ids), progress=progress)
    for name in _TOKENIZER:
        if not (folder / name).exists():
            shutil.copy(nano_path() / name, folder / name)
    return folder


def overhead(count: int) -> Row:
    """What a row spends on its way to an actor and back, beyond the same in this process."""
    spent = {name: _seconds_a_row(runner, count) for name, runner in (("ray", OnRay()), ("here", InThisProcess()))}
    note = f"{1e3 * spent['here']:.3f} ms without Ray, {1 / spent['ray']:,.0f} rows/s with it"
    return row_of("jobs.ray_overhead_ms", "ms", [1e3 * (spent["ray"] - spent["here"])], note=note)


def _seconds_a_row(runner: Runner, count: int) -> float:
    work = Work(JobConfig(input="-", output="-", ask="?"), FACTORY, {"window": 64})
    rows = (
        JobRow(number, CorpusRow(f"row-{number}", None, f"line {number}", {"audio": f"clips/{number}.flac"}))
        for number in range(count)
    )
    times = [time.perf_counter() for _ in runner.run(work, rows, lambda about: None)]
    first = min(_FIRST, len(times) // 2)
    return (times[-1] - times[first]) / (len(times) - 1 - first)


def efficiency(checkpoint: Path, count: int, cores: int) -> Row:
    """The rate of one process with all cores, and of an actor for each core, once all are at work.

    No two rows have the same clip. A job's end is not counted: a worker's last rows are no other's.
    """
    with tempfile.TemporaryDirectory(prefix="qwen2-audio-ray-") as name:
        torch.set_num_threads(cores)
        corpus = open_corpus(clips.write_shards(Path(name) / "clips", _rows_needed(count, cores)))
        together = _rate(corpus, checkpoint, InThisProcess(), 0, count)
        apart = _rate(corpus, checkpoint, OnRay(), cores, count)
    note = f"{apart:.3f} rows/s on {cores} workers, {together:.3f} in one process"
    return row_of("jobs.ray_efficiency", "x the rate", [apart / together], note=note)


def _rows_needed(count: int, workers: int) -> int:
    """So many that every worker has rows in hand until the last answer that is counted."""
    return count + 2 * _FULL + (IN_FLIGHT + AHEAD) * workers


def _rate(corpus: Corpus, checkpoint: Path, runner: Runner, workers: int, count: int) -> float:
    """Rows a second over `count` answers."""
    config = JobConfig(
        model=str(checkpoint), input="-", output="-", ask="What is that sound?", workers=workers, dtype="float32",
        sampling=Sampling(temperature=0.0, max_tokens=_MAX_TOKENS),
    )  # fmt: skip
    rows = (JobRow(number, row) for number, row in enumerate(corpus.rows()))
    loaded, times = list[About](), list[float]()
    outcomes = runner.run(Work(config), rows, loaded.append)
    with contextlib.closing(outcomes):
        for outcome in outcomes:
            if outcome.result is None:
                raise EvaluationError(f"Row {outcome.number} has no answer: {outcome.error}")
            if len(loaded) >= max(1, workers):
                times.append(time.perf_counter())
            if len(times) == _FULL + count:
                return count / (times[-1] - times[_FULL - 1])
    raise EvaluationError(f"The rows ended after {len(times)} answers of loaded workers, before {count} were counted.")
