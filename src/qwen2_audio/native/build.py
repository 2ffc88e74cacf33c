"""Compile csrc/ into one shared object beside this file, with the C++ compiler that is there.

The package's build (hatch_build.py) runs it, and so does `python -m qwen2_audio.native.build [TARGET]`. It imports only
the standard library, since a build has nothing else.

$CXX names the compiler. With $QWEN2_AUDIO_WERROR=1 a warning is an error: for CI, never for a user's installation,
whose compiler may know warnings that ours do not.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIBRARY = HERE / "lib" / "libqwa.so"  # in a folder of its own, or Python would take it for a module
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
WARNINGS = ("-Wall", "-Wextra")
WERROR_VARIABLE = "QWEN2_AUDIO_WERROR"
AVX2 = ("-mavx2", "-mfma", "-mf16c")
AVX512 = (*AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni")
# What a file is compiled with, by the end of its name. The kernels of the other files run on any CPU.
FLAGS = {"_avx2": AVX2, "_avx512": AVX512, "_amx": (*AVX512, "-mamx-tile", "-mamx-int8")}


class BuildError(Exception):
    """The kernels could not be built; the message says why."""


def compiler() -> list[str] | None:
    """The C++ compiler: $CXX, else the first of c++, g++, clang++ on the PATH; None if there is none."""
    command = os.environ.get("CXX", "").split()
    if command:
        return command if shutil.which(command[0]) else None
    name = next((name for name in ("c++", "g++", "clang++") if shutil.which(name)), None)
    return [name] if name else None


def build(sources: Path = SOURCES, target: Path = LIBRARY) -> Path:
    """Compile every .cpp of `sources`, link `target`, and return it. An old library stays until the new one is there.

    Raises BuildError: there are no sources, there is no compiler, or what the compiler wrote.
    """
    files = sorted(sources.glob("*.cpp"))
    if not files:
        raise BuildError(f"{sources} has no C++ sources; build from a checkout or a source distribution.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="qwa-") as folder:
        link(compile_objects(files, Path(folder)), target, "-shared")
    return target


def compile_objects(
    files: Sequence[Path], folder: Path, extra: Callable[[Path], Sequence[str]] = lambda file: ()
) -> list[Path]:
    """Compile each file to an object in `folder`, several at once; `extra` gives its flags beyond the usual ones.

    Raises BuildError: there is no compiler, or what the compiler wrote.
    """
    command = _compiler_or_error()
    werror = ("-Werror",) if os.environ.get(WERROR_VARIABLE) == "1" else ()
    objects = [folder / f"{file.stem}.o" for file in files]
    commands = [
        [*command, *COMMON, *WARNINGS, *werror, *flags(file), *extra(file), "-c", str(file), "-o", str(object_)]
        for file, object_ in zip(files, objects, strict=True)
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_run, commands))
    return objects


def link(objects: Sequence[Path], target: Path, *options: str) -> None:
    """Link `objects` into `target`, which stays as it was until that is done. Raises BuildError."""
    linked = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        _run([*_compiler_or_error(), *options, "-o", str(linked), *map(str, objects), "-lpthread", "-lm"])
        linked.replace(target)
    finally:
        linked.unlink(missing_ok=True)


def flags(file: Path) -> tuple[str, ...]:
    """What a file is compiled with beyond the common flags: nothing on processors other than x86-64."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return ()
    return next((more for ending, more in FLAGS.items() if file.stem.endswith(ending)), ())


def _compiler_or_error() -> list[str]:
    command = compiler()
    if command is None:
        raise BuildError("no C++ compiler was found; install g++ or clang++, or set CXX.")
    return command


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{' '.join(command)} failed:\n{done.stderr.strip()}")


if __name__ == "__main__":
    try:
        print(build(target=Path(sys.argv[1]) if len(sys.argv) > 1 else LIBRARY))  # noqa: T201
    except BuildError as error:
        sys.exit(f"qwen2-audio: the native kernels were not built: {error}")
