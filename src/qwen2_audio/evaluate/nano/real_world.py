"""Questions about recordings of people and things, from a folder that `python -m recipes.nano.real_world` has made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...audio.io import load
from ...errors import EvaluationError
from ...inputs.messages import user
from .mix import SPEECH, STRANGE, Clip, Samples, clip_seed, rms_db
from .questions import Question, abstains, names_kind, same_words
from .sounds.dsp import RATE
from .wording import TRANSCRIBE, abstention, ask_what

FOLDER = Path("runs/nano/real")
MANIFEST = "manifest.jsonl"
SPOKEN = "nano.real_speech"
# The sets of the manifest, and the rows in which their answers count. The first row decides how they are judged.
ROWS = {
    "numbers": (f"{SPOKEN}.wer", f"{SPOKEN}.exact", f"{SPOKEN}.numbers"),
    "words": (f"{SPOKEN}.wer", f"{SPOKEN}.exact", f"{SPOKEN}.words"),
    "joined_numbers": (f"{SPOKEN}.wer", f"{SPOKEN}.exact"),
    "joined_words": (f"{SPOKEN}.wer", f"{SPOKEN}.exact"),
    "outside": (f"{SPOKEN}.declines",),
    "sound": ("nano.real_sound.accuracy",),
}


def missing(folder: Path = FOLDER) -> str | None:
    """Why the recordings cannot be asked about, in one sentence; None where they can."""
    if (folder / MANIFEST).is_file():
        return None
    return f"{folder} has no {MANIFEST}; make it first: python -m recipes.nano.real_world {folder}"


def real_questions(folder: Path = FOLDER) -> Iterator[Question]:
    """A question about each recording. Raises EvaluationError for a line of the manifest that cannot be understood."""
    for number, line in enumerate((folder / MANIFEST).read_text(encoding="utf-8").splitlines()):
        try:
            entry = json.loads(line)
            kind, path, truth = entry["set"], folder / entry["path"], entry["truth"]
            rows = ROWS[kind]
        except (ValueError, KeyError, TypeError) as error:
            raise EvaluationError(
                f"Line {number + 1} of {folder / MANIFEST} is no recording: {line[:80]!r}; expected an object with "
                f"path, truth and set, one of {', '.join(ROWS)}. Make the folder again: "
                f"python -m recipes.nano.real_world {folder}"
            ) from error
        yield _question(rows, kind, load(path), truth, number)


def _question(rows: tuple[str, ...], kind: str, wave: Samples, truth: Any, number: int) -> Question:
    about: dict[str, Any] = {"seconds": len(wave) / RATE, "level_db": rms_db(wave), "family": kind, "voice": "person"}
    if kind == "sound":
        clip = Clip(truth, **about)
        text, judge = ask_what(clip, np.random.default_rng(clip_seed("real asks", number)))[0], names_kind
    else:
        clip = Clip(STRANGE if kind == "outside" else SPEECH, **about)
        text, judge = TRANSCRIBE[number % len(TRANSCRIBE)], same_words
        if kind == "outside":
            truth, judge = abstention(clip), abstains
    return Question(rows, [user(text, audio=(wave, RATE))], clip, truth, judge)
