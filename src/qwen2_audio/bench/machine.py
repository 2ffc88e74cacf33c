"""What a figure was measured on, and how much memory a process took."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

_CPUINFO = Path("/proc/cpuinfo")
_MEMINFO = Path("/proc/meminfo")
_STATUS = Path("/proc/self/status")


def describe(threads: int) -> dict[str, Any]:
    """The "machine" object of the JSON file."""
    total = _field(_MEMINFO, "MemTotal")
    return {
        "cpu": _cpu_name(),
        "cores": physical_cores(),
        "threads": threads,
        "memory_gib": None if total is None else round(total / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def physical_cores() -> int:
    """Cores this process may run on; two hardware threads of one core count once."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = set()
    for block in _read(_CPUINFO).split("\n\n"):
        entry = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in block.splitlines())}
        if entry.get("processor", "").isdecimal() and int(entry["processor"]) in allowed and "core id" in entry:
            cores.add((entry.get("physical id"), entry["core id"]))
    return len(cores) or len(allowed)


def peak_gb() -> float | None:
    """GB (10^9 bytes) that this process held at most (VmHWM); None where the system does not tell."""
    peak = _field(_STATUS, "VmHWM")
    return None if peak is None else peak / 1e9


def _cpu_name() -> str:
    for line in _read(_CPUINFO).splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _field(path: Path, name: str) -> int | None:
    """A `Name:   123 kB` line, in bytes."""
    for line in _read(path).splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""
