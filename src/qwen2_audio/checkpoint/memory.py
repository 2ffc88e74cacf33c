"""Available memory and disk of this machine, and byte counts as text: 1 GB = 10**9 bytes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..errors import CapacityError

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def format_count(number: int) -> str:
    """A count with a decimal suffix: 8397094912 -> "8.4 B"."""
    return _scaled(number, ("", "k", "M", "B")).rstrip()


def format_bytes(number: int) -> str:
    """Bytes in a decimal unit: 16794189824 -> "16.8 GB"."""
    return _scaled(number, ("bytes", "kB", "MB", "GB"))


def _scaled(number: int, units: tuple[str, ...]) -> str:
    step = max(i for i in range(len(units)) if i == 0 or number >= 1000**i)
    return f"{number / 1000**step:.3g} {units[step]}"


def available_bytes() -> int | None:
    """Bytes that can be allocated without swapping, within the container's limit; None when the system does not say."""
    readings = [reading for reading in (_meminfo_available(MEMINFO), _cgroup_available(CGROUP)) if reading is not None]
    return min(readings) if readings else _free_pages()


def _meminfo_available(path: Path) -> int | None:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    columns = next((line.split() for line in lines if line.startswith("MemAvailable:")), None)
    return int(columns[1]) * 1024 if columns else None


def _cgroup_available(folder: Path) -> int | None:
    """Bytes that the container may still allocate: its limit, minus its usage, plus its file pages.

    File pages, such as those of a checkpoint that another process has mapped, can be dropped.
    """
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = int((folder / "memory.current").read_text(encoding="ascii"))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):
        return None
    file_pages = sum(int(stat.get(name, 0)) for name in ("inactive_file", "active_file"))
    return None if limit == "max" else max(0, int(limit) - used + file_pages)


def _free_pages() -> int | None:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def require_memory(needed: int, what: str) -> None:
    """Raise CapacityError if `needed` bytes are not available; `what` is the subject of the message's sentence."""
    available = available_bytes()
    if available is not None and needed > available:
        raise CapacityError(
            f"{what} takes {format_bytes(needed)} of memory, and {format_bytes(available)} are available; free memory, "
            "or use a larger machine."
        )


def require_disk(needed: int, folder: Path, what: str) -> None:
    """Raise CapacityError if the disk of `folder` has less than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise CapacityError(
            f"{what} takes {format_bytes(needed)}, and {folder} has {format_bytes(free)} free; make room, or write to "
            "another disk."
        )
