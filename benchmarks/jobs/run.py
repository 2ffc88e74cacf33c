"""`python -m benchmarks jobs`: a job over many short clips with the bundled nano, and what kills do to one.

jobs.local_efficiency   its rate by that of m.batch on the same clips, decoded before
jobs.memory_growth      percent, of driver and worker together, the most after the first minute by the most in it
jobs.first_result_s     from the command to the first answer in the journal
jobs.chaos              rows lost, twice or otherwise after random kills of driver and workers
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from qwen2_audio.api.loading import load
from qwen2_audio.bench import machine
from qwen2_audio.bench.report import Report, Row
from qwen2_audio.errors import ConfigError, EvaluationError
from qwen2_audio.inputs.messages import user
from qwen2_audio.types import SamplingParams

from ..harness.rows import row_of
from . import chaos, clips

_QUESTION = "What is that sound?"
_MAX_TOKENS = 24
_FIRST_MINUTE = 60.0  # s
SIZES, QUICK_SIZES = (20_000, 4_000, 2_000, 100), (400, 200, 200, 6)  # clips, of them in m.batch; rows, kills


@dataclass(frozen=True)
class Options:
    """How much to measure."""

    quick: bool = False  # 400 clips and 6 kills instead of 20,000 and 100
    threads: int | None = None  # None: one a physical core

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads is {self.threads}; expected at least 1.")


@dataclass
class _Watched:
    """What was seen of a job's processes while it ran."""

    seconds: float  # from the first answer to the last
    first_result: float  # s from the start
    memory: list[tuple[float, int]]  # s from the start, bytes


def run(options: Options, progress: Callable[[str], None] = lambda line: None) -> Report:
    """Measure. Raises EvaluationError where the job does not answer every row."""
    threads = options.threads or machine.physical_cores()
    count, in_batch, rows, kills = QUICK_SIZES if options.quick else SIZES
    with tempfile.TemporaryDirectory(prefix="qwen2-audio-jobs-") as name:
        folder = Path(name)
        progress(f"{count:,} clips")
        pattern = clips.write_shards(folder / "clips", count)
        progress(f"m.batch on {in_batch:,} of them")
        batch_rate = rate_of_batch(in_batch, threads)
        progress("the job")
        watched = watch(folder, pattern, threads)
        report = [efficiency(watched, count, batch_rate), growth(watched)]
        report.append(row_of("jobs.first_result_s", "s", [watched.first_result]))
        progress(f"{kills} kills")
        (folder / "chaos").mkdir()
        damage = chaos.disturb(folder / "chaos", rows, kills, seed=1, seconds=0.05)  # long enough for all kills
    note = (
        f"{damage.kills} kills, {rows:,} rows: {damage.lost} lost, {damage.duplicated} twice, {damage.differing} other"
    )
    report.append(row_of("jobs.chaos", "rows", [damage.rows + damage.parts], note=note))
    about = machine.describe(threads) | {"ours": version("qwen2-audio"), "peer": None}
    about |= {"checkpoint": f"nano on {count:,} clips of 0.5 to 1.5 s", "dtype": "float32"}
    return Report(about, report)


def rate_of_batch(count: int, threads: int) -> float:
    """Clips a second of m.batch, their samples in memory, after a warm-up."""
    torch.set_num_threads(threads)
    chat = load("nano", device="cpu", dtype="float32")
    params = SamplingParams(temperature=0.0, max_tokens=_MAX_TOKENS)
    conversations = [[user(_QUESTION, audio=clips.samples_of(number))] for number in range(count)]
    chat.batch(conversations[:32], params)
    started = time.perf_counter()
    chat.batch(conversations[32:], params)
    rate = (count - 32) / (time.perf_counter() - started)
    chat.service().close()
    return rate


def watch(folder: Path, pattern: Path, threads: int) -> _Watched:
    """Run the job as a user does, and watch its memory and its first answer. Raises EvaluationError where it fails."""
    output = folder / "out"
    job = folder / "job.toml"
    job.write_text(
        f'model = "nano"\ninput = "{pattern}"\noutput = "{output}"\nask = "{_QUESTION}"\ndtype = "float32"\n'
        f"[sampling]\ntemperature = 0.0\nmax_tokens = {_MAX_TOKENS}\n"
    )
    command = [sys.executable, "-m", "qwen2_audio", "job", "run", str(job), "--json"]
    started, first, memory = time.monotonic(), 0.0, list[tuple[float, int]]()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment(threads)
    ) as done:
        while done.poll() is None:
            now = time.monotonic() - started
            if not first and any(path.stat().st_size for path in output.glob("journal/part-*")):
                first = now
            memory.append((now, memory_of(done.pid)))
            time.sleep(0.05 if not first else 0.5)
        first = first or time.monotonic() - started  # a job so short that its journal came and went between two looks
        assert done.stdout is not None
        text = done.stdout.read()
    if done.returncode != 0:
        raise EvaluationError(f"The job ended with exit status {done.returncode}.")
    summary = json.loads(text)
    return _Watched((summary["answered"] - 1) / summary["rows_per_second"], first, memory)


def _environment(threads: int) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(sys.path)}


def memory_of(pid: int) -> int:
    """Bytes in memory of a process and its children; 0 of one that is gone."""
    total = 0
    for process in (pid, *chaos.children(pid)):
        try:
            status = Path(f"/proc/{process}/status").read_text()
        except OSError:
            continue
        total += sum(1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    return total


def efficiency(watched: _Watched, count: int, batch_rate: float) -> Row:
    rate = (count - 1) / watched.seconds
    note = f"{rate:.1f} rows/s, m.batch {batch_rate:.1f}"
    return row_of("jobs.local_efficiency", "x the rate", [rate / batch_rate], note=note)


def growth(watched: _Watched) -> Row:
    """Of a run under a minute, by its first half."""
    end = watched.memory[-1][0]
    border = min(watched.first_result + _FIRST_MINUTE, end / 2)
    before = max(size for moment, size in watched.memory if moment <= border)
    after = max(size for moment, size in watched.memory if moment > border)
    sizes = [f"{size / 2**20:,.0f} MiB" for size in (before, after)]
    note = f"{sizes[0]} at most in the first {border:.0f} s, {sizes[1]} in {end - border:.0f} s"
    return row_of("jobs.memory_growth", "%", [100 * (after / before - 1)], note=note)
