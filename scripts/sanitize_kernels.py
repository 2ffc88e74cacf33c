"""The kernels and csrc/check/kernels_check.cpp built with sanitizers, and run: `make sanitize`.

    python scripts/sanitize_kernels.py [address] [thread]

    address    AddressSanitizer and UndefinedBehaviorSanitizer: accesses outside of buffers, undefined arithmetic
    thread     ThreadSanitizer: memory that two threads use without synchronising

Files for instruction sets that this CPU does not have are not instrumented: they are only linked. About a minute of one
core's time.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from qwen2_audio.native import build

CHECK = build.SOURCES / "check" / "kernels_check.cpp"
SANITIZERS = {
    "address": ("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "thread": ("-fsanitize=thread",),
}
OPTIMISATION = ("-O1", "-g1")  # compiles faster than -O3, and reports name functions and lines
CPU_FLAGS = {"_avx2": "avx2", "_avx512": "avx512_vnni", "_amx": "amx_int8"}  # as /proc/cpuinfo spells them


def main(names: list[str]) -> int:
    """Run the sanitizers called `names`, or all. Returns 0 if they found nothing."""
    unknown = [name for name in names if name not in SANITIZERS]
    if unknown:
        print(f"sanitize: {unknown[0]!r} is no sanitizer; expected {' or '.join(SANITIZERS)}.", file=sys.stderr)
        return 2
    failed = [name for name in names or SANITIZERS if not run(name)]
    return 1 if failed else 0


def run(name: str) -> bool:
    """Whether the sanitizer `name` found nothing. Raises BuildError."""
    start = time.monotonic()
    flags = SANITIZERS[name]
    files = [*sorted(build.SOURCES.glob("*.cpp")), CHECK]
    with tempfile.TemporaryDirectory(prefix="qwa-") as folder:
        program = Path(folder) / "kernels_check"
        objects = build.compile_objects(
            files, Path(folder), lambda file: (*OPTIMISATION, *(flags if runs_here(file) else ()))
        )
        build.link(objects, program, *flags)
        built = time.monotonic()
        done = subprocess.run([str(program)], check=False)
    seconds = f"built in {built - start:.0f} s, ran for {time.monotonic() - built:.0f} s"
    print(f"sanitize: {name}: {'nothing found' if done.returncode == 0 else 'FAILED'} ({seconds})", flush=True)
    return done.returncode == 0


def runs_here(file: Path) -> bool:
    """Whether this CPU runs what `file` is compiled to."""
    needed = next((flag for ending, flag in CPU_FLAGS.items() if file.stem.endswith(ending)), None)
    cpuinfo = Path("/proc/cpuinfo")
    return needed is None or not cpuinfo.exists() or needed in cpuinfo.read_text(encoding="utf-8").split()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except build.BuildError as error:
        sys.exit(f"sanitize: {error}")
