"""Compile csrc/ into one shared object beside this file, with whatever C++ compiler is there.

Run by the package's build (hatch_build.py) and by `python -m qwen2_audio.native.build`. It imports nothing of the
package and nothing but the standard library, since a build has neither.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIBRARY = HERE / "lib" / "libqwa.so"  # in a folder of its own: beside modules it would pass for one
SOURCES = HERE.parents[2] / "csrc"  # in a checkout; an installed package has only the library

COMMON = (
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-ffp-contract=off",
    "-fno-exceptions",
)
# GCC 12's own AVX-512 headers trip this warning.
WARNINGS = ("-Wall", "-Wextra", "-Wno-maybe-uninitialized", "-Wno-uninitialized")
AVX2 = ("-mavx2", "-mfma", "-mf16c")
AVX512 = (*AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni")
# A file whose name ends so is for CPUs that have these; the rest runs anywhere.
FLAGS = {"_avx2": AVX2, "_avx512": AVX512, "_amx": (*AVX512, "-mamx-tile", "-mamx-int8")}


class BuildError(Exception):
    """The kernels could not be built; the message says why."""


def compiler() -> list[str] | None:
    """The C++ compiler: $CXX, else the first of c++, g++, clang++ on the PATH; None where there is none."""
    named = os.environ.get("CXX", "").split()
    if named:
        return named if shutil.which(named[0]) else None
    found = next((name for name in ("c++", "g++", "clang++") if shutil.which(name)), None)
    return [found] if found else None


def build(sources: Path = SOURCES, target: Path = LIBRARY) -> Path:
    """Compile every .cpp of `sources`, link `target`, and return it. The old library stays until the new one is whole.

    Raises BuildError: no sources, no compiler, or the compiler's own words.
    """
    files = sorted(sources.glob("*.cpp"))
    if not files:
        raise BuildError(f"{sources} has no C++ sources; build from a checkout or a source distribution.")
    command = compiler()
    if command is None:
        raise BuildError("no C++ compiler was found; install g++ or clang++, or set CXX.")
    target.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="qwa-") as folder:
        objects = [Path(folder) / f"{file.stem}.o" for file in files]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            commands = [
                [*command, *COMMON, *WARNINGS, *flags(source), "-c", str(source), "-o", str(object_)]
                for source, object_ in zip(files, objects, strict=True)
            ]
            list(pool.map(_run, commands))
        linked = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            _run([*command, "-shared", "-o", str(linked), *map(str, objects), "-lpthread", "-lm"])
            linked.replace(target)
        finally:
            linked.unlink(missing_ok=True)
    return target


def flags(file: Path) -> tuple[str, ...]:
    """What a file is compiled with beyond the common flags; nothing on other processors than x86-64."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return ()
    return next((more for ending, more in FLAGS.items() if file.stem.endswith(ending)), ())


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{' '.join(command)} failed:\n{done.stderr.strip()}")


if __name__ == "__main__":
    try:
        print(build())  # noqa: T201
    except BuildError as error:
        sys.exit(f"qwen2-audio: the native kernels were not built: {error}")
