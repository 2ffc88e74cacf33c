"""`python -m benchmarks long`: recordings whose words and times are known, with the bundled nano.

long.wer_excess         points of word errors more than the same utterances alone, clean; _20db in pink noise
long.segment_start_ms   from an utterance's start to the nearest segment's, median
long.words_in_place     of the right words, within 0.5 s of the truth
long.word_start_ms      from words' starts to the truth, of sentences that the aligner was not trained on
long.cuts_in_speech     windows that end inside a phone, of monologues with hardly a pause; _10db in pink noise
long.unaccounted        samples of random files that are neither heard nor said to be skipped
long.speedup            an hour against the same windows one after another
long.vad_x_real_time    seconds of sound in which speech is found, a second of one thread
long.memory_growth      ten hours against one
long.find_fact          facts said once in ten minutes that are found by parts
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

from qwen2_audio.bench import machine
from qwen2_audio.bench.output import SILENT, Progress
from qwen2_audio.bench.report import Report, Row
from qwen2_audio.errors import ConfigError

from ..harness.rows import chosen
from . import cuts, find_fact, recognition, speed, word_times
from .session import Session

Measure = Callable[[Session, str], Row | list[Row]]
PREFIX = "long."


ROWS: dict[str, Measure] = {  # in this order: those that take long are last
    "vad_x_real_time": speed.vad_speed,
    "speedup": speed.speedup,
    "wer_excess": recognition.wer_excess,
    "wer_excess_20db": partial(recognition.wer_excess, decibels=20.0),
    "segment_start_ms": recognition.segment_starts,
    "words_in_place": recognition.words_in_place,
    "word_start_ms": lambda session, _: word_times.rows(session),
    "cuts_in_speech": cuts.cuts_in_speech,
    "cuts_in_speech_10db": partial(cuts.cuts_in_speech, decibels=10.0),
    "unaccounted": cuts.unaccounted,
    "find_fact": lambda session, _: find_fact.rows(session),
    "memory_growth": speed.memory_growth,
}


@dataclass(frozen=True)
class Options:
    """How much to measure."""

    rows: tuple[str, ...] = tuple(ROWS)  # names, with or without "long." in front
    quick: bool = False  # minutes of sound instead of hours
    threads: int | None = None  # None: one a physical core

    def __post_init__(self) -> None:
        names = [row.strip().removeprefix(PREFIX) for row in self.rows]
        object.__setattr__(self, "rows", chosen(names, ROWS, PREFIX))
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads is {self.threads}; expected at least 1.")


def run(options: Options, progress: Progress = SILENT) -> Report:
    """Measure; `progress` keeps each row as it is there. Raises EvaluationError without the synthesisers, ConfigError
    without rapidfuzz or silero-vad."""
    session = Session(quick=options.quick, threads=options.threads, progress=progress)
    about: dict[str, Any] = machine.describe(session.threads) | {"ours": version("qwen2-audio"), "peer": None}
    length = f"{session.amounts.recording / 60:.0f} minutes"
    about |= {"checkpoint": f"nano on {length} of synthetic speech", "dtype": "float32"}
    report = Report(about, [])
    for name, measure in ROWS.items():
        if name in options.rows:
            measured = measure(session, PREFIX + name)
            for row in measured if isinstance(measured, list) else [measured]:
                report.rows.append(row)
                progress.keep(report)
    return report
