"""A job that is killed again and again, driver and workers, at random moments; and what of its rows is not as it was.

`python -m benchmarks.jobs.chaos JSON` is the driver: the job's keys, and the stub worker's options under "options".
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen2_audio.jobs.config import JobConfig
from qwen2_audio.jobs.run import Job

from .stub_worker import FACTORY

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Damage:
    """What differs from a job that nobody disturbed, in rows; `parts`: files that are not the same bytes."""

    kills: int
    lost: int
    duplicated: int
    differing: int
    parts: int

    @property
    def rows(self) -> int:
        return self.lost + self.duplicated + self.differing


def write_manifest(path: Path, rows: int) -> None:
    """A list of clips that do not exist, for a worker that reads none: every seventh twice, some that fail."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            clip = number - number % 7 if number % 7 == 1 else number
            row = {"id": f"row-{number}", "audio": f"https://nowhere/{clip}.wav", "number": number}
            file.write(json.dumps(row | ({"do": "fail"} if number % 23 == 5 else {})) + "\n")


def disturb(
    folder: Path, rows: int, kills: int, *, seed: int, seconds: float = 0.02, life: tuple[float, float] = (0.3, 0.9)
) -> Damage:
    """Run a job of `rows` rows undisturbed and, beside it, one that is killed `kills` times, until it is done.

    seconds: that the stub takes for a row. life: a driver or worker is killed after so many seconds.
    """
    write_manifest(folder / "rows.jsonl", rows)
    table = {"input": str(folder / "rows.jsonl"), "ask": "What is it?", "rows_per_part": 64, "workers": 2}
    calm, wild = {**table, "output": str(folder / "calm")}, {**table, "output": str(folder / "wild")}
    Job(JobConfig.of(calm), factory=FACTORY, options={"window": 8}).run()
    options = {"seconds": seconds, "window": 8, "faults": 0.001}
    done = _kill_until_done(wild, options, kills, random.Random(seed), life)
    return compare(folder / "calm", folder / "wild", done)


def _kill_until_done(
    table: dict[str, Any], options: dict[str, Any], kills: int, rng: random.Random, life: tuple[float, float]
) -> int:
    """Returns the kills that there was time for."""
    done = 0
    while True:
        driver = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.jobs.chaos", json.dumps({**table, "options": options})],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while driver.poll() is None and done < kills:
            try:
                driver.wait(rng.uniform(*life))
            except subprocess.TimeoutExpired:
                workers = children(driver.pid)
                victim = rng.choice(workers) if workers and rng.random() < 0.5 else driver.pid
                done += _kill(victim)
        status = driver.wait()
        if status in (0, 1):
            return done


def children(pid: int) -> list[int]:
    """The processes that a process has started, and that live."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    time.sleep(0.01)
    return True


def compare(calm: Path, wild: Path, kills: int) -> Damage:
    """The two folders' rows by their number and content, and their files byte by byte."""
    expected, found = _rows(calm), _rows(wild)
    lost = len(expected.keys() - found.keys())
    duplicated = sum(len(texts) - 1 for texts in found.values())
    differing = sum(texts[0] != expected.get(name, [b""])[0] for name, texts in found.items())
    files = {path.relative_to(folder) for folder in (calm, wild) for path in folder.glob("*/part-*") if path.is_file()}
    parts = sum(_bytes(calm / path) != _bytes(wild / path) for path in files)
    return Damage(kills, lost, duplicated, differing, parts)


def _rows(folder: Path) -> dict[str, list[bytes]]:
    """Lines of parts and errors by id."""
    rows: dict[str, list[bytes]] = {}
    for path in sorted([*folder.glob("parts/part-*"), *folder.glob("errors/part-*")]):
        for line in path.read_bytes().splitlines():
            rows.setdefault(json.loads(line)["id"], []).append(line)
    return rows


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def main() -> int:
    """The driver. Returns the job's exit status."""
    table = json.loads(sys.argv[1])
    options = table.pop("options")
    return Job(JobConfig.of(table), factory=FACTORY, options=options).run().exit_status


if __name__ == "__main__":
    sys.exit(main())
