"""How a checkpoint hears sounds of any length: `transcription.json` in its folder, beside generation_config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..audio.mel import WINDOW_SECONDS
from ..checkpoint import hub
from ..checkpoint.json_file import read_json
from ..errors import ConfigError, did_you_mean

FILE = "transcription.json"
ALIGNER = "aligner.safetensors"  # beside it, where the checkpoint has one
_SHORTEST_WINDOW = 1.0  # s


@dataclass(frozen=True)
class TranscriptionSettings:
    """What belongs to a checkpoint, and not to a call. Raises ConfigError for values that cannot work."""

    window_seconds: float = float(WINDOW_SECONDS)  # that the model hears at once, at most
    merge: bool = True  # several runs of speech share a window; else each has its own
    merge_gap: float = 2.0  # s of other sound between runs that share a window, at most
    pad: float = 0.2  # s of sound before and after a run that are heard too
    transcribe: str | None = None  # what it is asked; None: the wording of `wording`
    translate: str | None = None
    no_speech: tuple[str, ...] = ()  # what it says, instead of a transcript, of a sound without speech
    aligner: str | None = None  # file of a head that finds times of words; no key of the JSON file: it lies beside it
    min_confidence: float | None = None  # below it a segment is flagged; None: not calibrated, and none is
    # Questions about a long sound. What follows the question that is put to a part, with {start} and {end}; None: the
    # wording of `questions.wording`; "": nothing, for a checkpoint that would not follow it.
    part: str | None = None
    no_answer: tuple[str, ...] = ()  # how answers begin, beside "Nothing", of a part that does not hold the answer
    combine: bool = True  # it can answer from notes and transcripts; else these themselves are the answer

    def __post_init__(self) -> None:
        object.__setattr__(self, "no_speech", tuple(self.no_speech))
        object.__setattr__(self, "no_answer", tuple(self.no_answer))
        ranges = {"window_seconds": (_SHORTEST_WINDOW, WINDOW_SECONDS), "merge_gap": (0, 60), "pad": (0, 5)}
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise ConfigError(f"{name} is {value!r}; expected seconds between {low:g} and {high:g}.")
        for name in ("merge", "combine"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; expected true or false.")
        if self.part is not None:
            try:
                self.part.format(start="0:00", end="0:30")
            except (AttributeError, KeyError, IndexError, ValueError) as error:
                raise ConfigError(f"part is {self.part!r}; expected a text with {{start}} and {{end}}.") from error
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise ConfigError(f"min_confidence is {self.min_confidence!r}; expected a probability between 0 and 1.")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> TranscriptionSettings:
        """Raises ConfigError, with `where` in front, for a key that is not known and for values that cannot work."""
        known = [field.name for field in fields(cls) if field.name != "aligner"]
        for name in values:
            if name not in known:
                raise ConfigError(f"{where} has the key {name!r}, which is not known.{did_you_mean(name, known)}")
        try:
            return cls(**values)
        except (ConfigError, TypeError) as error:
            raise ConfigError(f"{where}: {error}") from error


def read_settings(
    checkpoint: str | Path, *, revision: str | None = None, local_files_only: bool = False
) -> TranscriptionSettings:
    """Those of a checkpoint, by its folder or its name on the hub; the defaults where it has no such file. `aligner`
    is that of the folder.

    Raises ConfigError for a file that cannot be read, and WeightsError as `checkpoint.hub.resolve`.
    """
    folder = hub.resolve(checkpoint, [FILE, ALIGNER], revision=revision, local_files_only=local_files_only)
    path = folder / FILE
    settings = TranscriptionSettings.from_dict(read_json(path, ConfigError), str(path))
    aligner = folder / ALIGNER
    return replace(settings, aligner=str(aligner)) if aligner.is_file() else settings
