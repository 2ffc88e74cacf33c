"""Whether a release installs: source distribution -> wheel -> fresh environment -> the documented programs.

    python scripts/release_check.py [no-compiler] [no-extras]     (`make release-check` does both)

no-compiler: the wheel is built and used where no compiler is, with the server's extra.
no-extras:   the wheel is built with the compiler that is there, and installed without extras.
Both take their dependencies from constraints.txt. Needs the packages of `make setup`; takes about two minutes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from installation import (
    COMPILERS,
    ROOT,
    CheckError,
    Installation,
    check_demo,
    check_five_lines,
    check_modules,
    check_serve,
    check_serve_is_refused,
    check_types,
    expect,
    say,
)

NOT_SHIPPED = (".ci/", "examples/audio")  # our own pipeline; a link, whose clips are there as files
KERNELS = "qwen2_audio/native/lib/libqwa.so"


def build_source(folder: Path) -> Path:
    """The source distribution of this checkout. CheckError where it lacks a tracked file."""
    subprocess.run(
        [sys.executable, "-m", "build", "--sdist", "--outdir", folder, ROOT], check=True, capture_output=True
    )
    (source,) = folder.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    if shutil.which("git") and (ROOT / ".git").exists():
        listed = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True, check=True).stdout
        tracked = [name for name in listed.splitlines() if (ROOT / name).exists() and not name.startswith(NOT_SHIPPED)]
        missing = sorted(set(tracked) - names)
        expect(not missing, f"The source distribution lacks {len(missing)} tracked files: {missing[:10]}")
    say(f"{source.name}: {len(names)} files, {source.stat().st_size / 1e6:.1f} MB")
    return source


def build_wheel(source: Path, installation: Installation, *, kernels: bool) -> Path:
    """The wheel that pip makes of `source`, with or without native kernels."""
    folder = installation.work.parent / "wheel"
    installation.pip("wheel", "--no-deps", "--wheel-dir", folder, source)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    expect((KERNELS in names) == kernels, f"{wheel.name} has {'no' if kernels else 'the'} native kernels.")
    expect(
        wheel.name.endswith("-py3-none-any.whl") != kernels, f"{wheel.name} is named for other machines than its own."
    )
    say(f"{wheel.name}: {len(names)} files, {wheel.stat().st_size / 1e6:.1f} MB, {'with' if kernels else 'no'} kernels")
    return wheel


def install(wheel: Path, installation: Installation, extra: str = "") -> None:
    """The wheel into the fresh environment, its dependencies as constraints.txt has them."""
    installation.pip("install", "-c", ROOT / "constraints.txt", f"{wheel}{extra}")
    installation.pip("check")
    say(f"installed{' with ' + extra if extra else ''}: {len(installation.versions())} packages")


def no_compiler(source: Path, folder: Path) -> None:
    """Torch computes in the kernels' place, and everything works."""
    installation = Installation(folder, compiler=False)
    install(build_wheel(source, installation, kernels=False), installation, "[server]")
    check_demo(installation)
    check_five_lines(installation)
    check_serve(installation)
    check_types(installation, folder / "mypy")


def no_extras(source: Path, folder: Path) -> None:
    """All that needs no extra works, and what needs one says so."""
    installation = Installation(folder)
    kernels = any(shutil.which(name) for name in COMPILERS)
    install(build_wheel(source, installation, kernels=kernels), installation)
    check_modules(installation)
    check_demo(installation)
    check_five_lines(installation)
    check_serve_is_refused(installation)
    check_types(installation, folder / "mypy")


def main(wanted: list[str]) -> None:
    checks = {"no-compiler": no_compiler, "no-extras": no_extras}
    unknown = sorted(set(wanted) - set(checks))
    if unknown:
        sys.exit(f"There is no check {unknown[0]!r}; expected {' or '.join(checks)}.")
    with tempfile.TemporaryDirectory(prefix="release-check-") as folder:
        try:
            source = build_source(Path(folder))
            for name in wanted or list(checks):
                say(f"--- {name}")
                checks[name](source, Path(folder) / name)
        except CheckError as error:
            sys.exit(f"release check failed: {error}")
    say("the release installs")


if __name__ == "__main__":
    main(sys.argv[1:])
