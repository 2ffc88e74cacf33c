"""`check`: are these the data that the published figures are of? No model: rows, clips, references, lists."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..audio.decode import read_header
from ..audio.io import SAMPLE_RATE
from ..audio.mel import MEL_HOP, WINDOW_SECONDS
from ..datasets.sounds import load_sound
from ..errors import AudioError, Qwen2AudioError
from .example import Example
from .layouts.find import find
from .layouts.questions import mmau_version
from .task import Task

QUIET = 1e-3  # of full scale, -60 dB: a clip whose samples all lie below is silent
TOLD = 5  # rows of a kind that are named
_AHEAD = 32  # rows that are looked at while the first of them is waited for
_TEXTS = (".json", ".jsonl", ".csv", ".tsv", ".txt", ".gz", ".scp")  # lists small enough to be hashed
# Tokens of the references in the official lists, counted by the official chain (EVAL A5).
DENOMINATORS = {
    "librispeech_dev_clean": 54798, "librispeech_dev_other": 51529, "librispeech_test_clean": 53027,
    "librispeech_test_other": 52882,
    "aishell2_Mic_dev": 24802, "aishell2_Mic_test": 49531, "aishell2_iOS_dev": 24802, "aishell2_iOS_test": 49531,
    "aishell2_android_dev": 24802, "aishell2_android_test": 49531,
}  # fmt: skip
# What can be wrong with a row: the heading, and whether the row cannot be asked because of it.
KINDS = {
    "missing": "clips are missing",
    "corrupt": "clips cannot be decoded",
    "damaged": "clips are damaged, and heard as far as they go",
    "silent": "clips are silent",
    "long": f"clips last over {WINDOW_SECONDS} s; their first {WINDOW_SECONDS} s are heard, as in the official run",
    "short": "clips are too short to be heard",
    "reference": "rows have no reference",
}
BAD = ("missing", "corrupt", "short", "reference")  # kinds that keep rows out of the figures


@dataclass(frozen=True)
class ListFile:
    """A list or table that the rows stand in."""

    name: str
    sha256: str | None  # None: not a text, and too large to be hashed in a moment
    version: str | None = None  # where the benchmark has several, and this is one of them


@dataclass
class CheckReport:
    """What `check` found."""

    task: str
    layout: str
    files: list[ListFile]
    rows: Counter[str] = field(default_factory=Counter)  # by source
    expected: Mapping[str, int] = field(default_factory=dict)  # the registry's, by source
    problems: dict[str, list[str]] = field(default_factory=dict)  # kind -> what is to be said of each row
    rates: Counter[int] = field(default_factory=Counter)  # Hz of the files, other than 16,000
    seconds: float = 0.0  # of all clips together
    denominators: Counter[str] = field(default_factory=Counter)  # reference tokens by source, where they are counted
    prompts: dict[str, str | None] = field(default_factory=dict)  # each source's first
    repairs: Mapping[str, int] = field(default_factory=dict)  # what was done to find clips
    unknown: list[str] = field(default_factory=list)  # columns that nothing here reads
    notes: list[str] = field(default_factory=list)  # what could not be checked, and why

    @property
    def is_complete(self) -> bool:
        """Whether every row that the published figures are of is there and can be asked and scored."""
        return not self.differences() and not any(self.problems.get(kind) for kind in BAD)

    def differences(self) -> list[str]:
        """Sentences on counts that are not the published ones."""
        said = []
        if set(self.rows) & set(self.expected) or not self.expected:
            pairs = [(name, self.rows.get(name, 0), count) for name, count in self.expected.items()]
        else:  # the list's names for its parts are its own
            pairs = [("all parts", self.rows.total(), sum(self.expected.values()))]
        said += [f"{name} has {found:,} rows; expected {count:,}." for name, found, count in pairs if found != count]
        for name, found in self.denominators.items():
            wanted = DENOMINATORS.get(name)
            if wanted is not None and found != wanted:
                said.append(f"The references of {name} have {found:,} tokens; those of the official list {wanted:,}.")
        return said

    def lines(self) -> list[str]:
        """The report for people."""
        total = f"{self.rows.total():,} rows, {self.seconds / 3600:.2f} h"
        said = [f"{self.task}: {total}, read as {self.layout}"]
        for file in self.files[:TOLD]:
            version = f", version {file.version}" if file.version else ""
            said.append(f"  {file.name}{f'  sha256 {file.sha256}' if file.sha256 else ''}{version}")
        if len(self.files) > TOLD:
            said.append(f"  and {len(self.files) - TOLD} more files")
        for name, count in self.rows.items():
            tokens = f", {self.denominators[name]:,} reference tokens" if name in self.denominators else ""
            said.append(f"  {name}: {count:,} rows{tokens}; prompt {_short(self.prompts.get(name))}")
        said += [f"  differs: {sentence}" for sentence in self.differences()]
        for kind, found in self.problems.items():
            said.append(f"  {len(found):,} {KINDS[kind]}")
            said += [f"    {sentence}" for sentence in found[:TOLD]]
        for rate, count in sorted(self.rates.items()):
            said.append(f"  {count:,} clips are at {rate:,} Hz and are resampled to {SAMPLE_RATE:,} Hz")
        said += [f"  {count:,} clips were found {how}" for how, count in self.repairs.items()]
        if self.unknown:
            said.append(f"  columns that nothing here reads: {', '.join(self.unknown)}")
        said += [f"  {note}" for note in self.notes]
        said.append(
            "  complete" if self.is_complete else "  not complete: figures are not comparable with published ones"
        )
        return said

    def as_dict(self) -> dict[str, Any]:
        """The report for machines; every row with a problem is in it."""
        return {
            "task": self.task, "layout": self.layout, "complete": self.is_complete,
            "files": [vars(file) for file in self.files], "rows": dict(self.rows), "expected": dict(self.expected),
            "differences": self.differences(), "problems": self.problems, "rates": dict(self.rates),
            "seconds": round(self.seconds, 3), "reference_tokens": dict(self.denominators), "prompts": self.prompts,
            "repairs": dict(self.repairs), "unknown_columns": self.unknown, "notes": self.notes,
        }  # fmt: skip


@dataclass(frozen=True)
class _Clip:
    """What is known of a row's clip."""

    example: Example
    seconds: float = 0.0
    rate: int | None = None  # Hz of its file
    problem: tuple[str, str] | None = None  # kind, sentence


def check(task: Task, data: str | Path, *, advance: Callable[[], None] = lambda: None) -> CheckReport:
    """Read every row and every clip of `task` in `data`. `advance` is called after each row.

    Raises DatasetError where there is nothing of the task, or a list cannot be read.
    """
    found = find(task, data)
    report = CheckReport(task.id, found.layout, [_list_file(path, task) for path in found.files])
    report.expected = dict(task.sources)
    count = _token_counter(task, report)
    columns: dict[str, None] = {}
    for clip in _looked_at(found.examples):
        _add(report, clip, task, count)
        columns |= dict.fromkeys(clip.example.columns)
        advance()
    report.repairs = dict(found.finder.repairs) if found.finder is not None else {}
    own = {"question", "reference_column"}
    report.unknown = [name for name in columns if found.known and name.lower() not in found.known | own]
    return report


def _looked_at(examples: Iterator[Example]) -> Iterator[_Clip]:
    """Every example with its clip decoded, in order; two threads, as decoding leaves Python's lock."""
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(_look_at, example) for example in islice(examples, _AHEAD)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [threads.submit(_look_at, example) for example in islice(examples, 1)]


def _look_at(example: Example) -> _Clip:
    sound = example.sound
    where = f"{example.where}: {sound.name}" if example.where else sound.name
    if isinstance(sound.source, str) and not _is_url(sound.source) and not Path(sound.source).is_file():
        return _Clip(example, problem=("missing", where))
    try:
        loaded = load_sound(sound)
        rate = _rate_of(example)
    except Qwen2AudioError as error:
        return _Clip(example, problem=("corrupt", f"{where}: {error}"))
    if len(loaded.waveform) <= 2 * MEL_HOP:  # no audio token
        return _Clip(example, loaded.seconds, rate, ("short", f"{where}: {loaded.seconds * 1000:.3g} ms"))
    problem = None
    if loaded.seconds > WINDOW_SECONDS:
        problem = ("long", f"{where}: {loaded.seconds:.2f} s")
    elif float(np.abs(loaded.waveform).max()) < QUIET:
        problem = ("silent", where)
    elif loaded.notes:
        problem = ("damaged", f"{where}: {loaded.notes[0]}")
    return _Clip(example, loaded.seconds, rate, problem)


def _is_url(source: str) -> bool:
    return source[:8].lower().startswith(("http://", "https://", "data:"))


def _rate_of(example: Example) -> int | None:
    """The sampling rate of the clip's file; None where its header does not say."""
    source = example.sound.source
    if isinstance(source, str) and _is_url(source):
        return None
    try:
        with open(source, "rb") if isinstance(source, str) else io.BytesIO(source.read()) as file:
            return read_header(file).rate
    except AudioError:
        return None


def _add(report: CheckReport, clip: _Clip, task: Task, count: Callable[[str], int] | None) -> None:
    example = clip.example
    report.rows[example.source] += 1
    report.seconds += clip.seconds
    report.prompts.setdefault(example.source, example.prompt)
    if clip.rate is not None and clip.rate != SAMPLE_RATE:
        report.rates[clip.rate] += 1
    if clip.problem is not None:
        kind, sentence = clip.problem
        report.problems.setdefault(kind, []).append(sentence)
    if example.reference is None and needs_reference(task):
        report.problems.setdefault("reference", []).append(example.where or example.id)
    if count is not None and example.reference is not None:
        report.denominators[example.source] += count(example.reference)


def needs_reference(task: Task) -> bool:
    """Whether a row without a reference cannot be scored: not where a judge, or the authors' server, decides."""
    return task.id != "mmau-test" and not task.scorer.endswith(("_open", "_ifeval", "_harm", "airbench_chat"))


def _token_counter(task: Task, report: CheckReport) -> Callable[[str], int] | None:
    """Counts a reference's tokens as the task's error rate does; None where the task has no error rate."""
    if task.scorer not in ("wer", "cer"):
        return None
    from .score.transcripts import transcript_tokens

    try:
        transcript_tokens(task, "")
    except Qwen2AudioError as error:
        report.notes.append(f"Reference tokens were not counted: {error}")
        return None
    return lambda text: len(transcript_tokens(task, text))


def _short(prompt: str | None) -> str:
    return "none" if prompt is None else repr(prompt if len(prompt) <= 100 else f"{prompt[:97]}...")


def _list_file(path: Path, task: Task) -> ListFile:
    if not path.name.lower().endswith(_TEXTS):
        return ListFile(path.name, None)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ListFile(path.name, digest, mmau_version(path) if task.id.startswith("mmau") else None)
