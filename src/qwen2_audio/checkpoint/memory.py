"""How much memory this machine can still give, and how bytes are written for people: 1 GB = 10**9 bytes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..errors import CapacityError

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def amount(number: int) -> str:
    """8397094912 -> "8.4 B"."""
    return _scaled(number, ("", "k", "M", "B")).rstrip()


def size(number: int) -> str:
    """Bytes in decimal units: 16794189824 -> "16.8 GB"."""
    return _scaled(number, ("bytes", "kB", "MB", "GB"))


def _scaled(number: int, units: tuple[str, ...]) -> str:
    step = max(i for i in range(len(units)) if i == 0 or number >= 1000**i)
    return f"{number / 1000**step:.3g} {units[step]}"


def available_bytes() -> int | None:
    """Memory that can be taken without swapping, container limits included; None where the system does not say."""
    known = [room for room in (_meminfo(MEMINFO), _cgroup_room(CGROUP)) if room is not None]
    return min(known) if known else _free_pages()


def _meminfo(path: Path) -> int | None:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = next((line.split() for line in lines if line.startswith("MemAvailable:")), None)
    return int(found[1]) * 1024 if found else None


def _cgroup_room(folder: Path) -> int | None:
    """What the container may still take: its limit, less what it holds and cannot drop.

    Pages of files can be dropped, those of a checkpoint that another process has mapped included.
    """
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        held = int((folder / "memory.current").read_text(encoding="ascii"))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):
        return None
    files = sum(int(stat.get(name, 0)) for name in ("inactive_file", "active_file"))
    return None if limit == "max" else max(0, int(limit) - held + files)


def _free_pages() -> int | None:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def require_memory(needed: int, what: str) -> None:
    """Raise CapacityError if less than `needed` bytes can be taken; `what` begins the sentence and takes them."""
    room = available_bytes()
    if room is not None and needed > room:
        raise CapacityError(
            f"{what} takes {size(needed)} of memory, and {size(room)} are available; free memory, or use a larger "
            "machine."
        )


def require_disk(needed: int, folder: Path, what: str) -> None:
    """Raise CapacityError if the disk of `folder` has less than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise CapacityError(
            f"{what} takes {size(needed)}, and {folder} has {size(free)} free; make room, or write to another disk."
        )
