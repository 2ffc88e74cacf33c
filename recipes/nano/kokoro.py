"""Kokoro's dry clips, made once: a WAV file for each line, named by what is said, by whom and how fast."""

from __future__ import annotations

import hashlib
import json
import os
import wave
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np

from qwen2_audio.evaluate.nano.speech import kokoro, kokoro_files

from .clips import write_wav
from .errors import RecipeError
from .said import Line

CHUNK = 20  # lines handed to a process at a time


def folder_of(work: Path) -> Path:
    """Where Kokoro's files and clips are: those that $NANO_KOKORO names, or in the work folder."""
    return Path(os.environ.get(kokoro.FOLDER_VARIABLE) or work / "kokoro")


def path_of(line: Line, folder: Path) -> Path:
    content = json.dumps([line.aloud, sorted(line.voice), line.speed])
    name = hashlib.sha256(content.encode()).hexdigest()[:20]
    return folder / "dry" / name[:2] / f"{name}.wav"


def make(lines: Sequence[Line], folder: Path, workers: int) -> int:
    """Say the lines that have no clip yet; returns how many those were. A killed run loses the clips under way only.

    Raises EvaluationError where Kokoro's files cannot be had.
    """
    from rich.progress import track

    kokoro_files.fetch(folder)
    os.environ[kokoro.FOLDER_VARIABLE] = str(folder.resolve())  # for the processes, too
    missing = [line for line in dict.fromkeys(lines) if not path_of(line, folder).is_file()]
    chunks = [missing[at : at + CHUNK] for at in range(0, len(missing), CHUNK)]
    with ProcessPoolExecutor(workers) as pool:
        tasks = [pool.submit(_say_all, chunk, folder) for chunk in chunks]
        for task in track(as_completed(tasks), f"Kokoro, {CHUNK} clips each", total=len(tasks)):
            task.result()
    return len(missing)


def _say_all(lines: Sequence[Line], folder: Path) -> None:
    for line in lines:
        path = path_of(line, folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        write_wav(kokoro.say(line.aloud, dict(line.voice), line.speed), part)
        part.replace(path)


def dry(line: Line, folder: Path) -> np.ndarray:
    """The clip of a line: float64 [n] at 16 kHz. Raises RecipeError where it was not made."""
    path = path_of(line, folder)
    if not path.is_file():
        raise RecipeError(f"{folder} has no clip of {line.aloud!r}; make them first: python -m recipes.nano kokoro")
    return read_wav(path)


def read_wav(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768.0
