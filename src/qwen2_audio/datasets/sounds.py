"""The samples of a row's sound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..audio.io import SAMPLE_RATE, load_with_notes
from ..audio.limits import Limits
from ..errors import AudioError
from .remote import is_remote, read_remote
from .row import Sound

ROUNDING = 0.1  # seconds; manifests round a file's length, and nothing is cut off for that


@dataclass(frozen=True)
class LoadedSound:
    """A sound's samples, and what of its file was lost."""

    waveform: np.ndarray  # float32 [S], mono, 16 kHz
    notes: tuple[str, ...] = ()  # sentences

    @property
    def seconds(self) -> float:
        return len(self.waveform) / SAMPLE_RATE


def load_sound(sound: Sound, *, limits: Limits | None = None) -> LoadedSound:
    """Read and decode a sound. Raises AudioError: no such file, no sound in it, or a part that begins after its end."""
    source: str | bytes
    if not isinstance(sound.source, str):
        source = sound.source.read()
    elif is_remote(sound.source):
        source = read_remote(sound.source, (limits or Limits()).max_bytes)
    else:
        source = sound.source
    waveform, notes = load_with_notes(source, limits=limits, name=sound.name)
    return LoadedSound(part_of(waveform, sound), notes)


def part_of(waveform: np.ndarray, sound: Sound) -> np.ndarray:
    """Of a file's samples, float32 [S] at 16 kHz, those that `sound` means.

    A `duration` without an `offset` that is the file's length but for 0.1 s, as NeMo's manifests have it, cuts nothing.
    Raises AudioError for a part that begins after the end.
    """
    seconds = len(waveform) / SAMPLE_RATE
    if sound.offset and sound.offset >= seconds:
        raise AudioError(f"{sound.name} lasts {seconds:.2f} s, and the row's part begins at {sound.offset:g} s.")
    start, end = round(sound.offset * SAMPLE_RATE), len(waveform)
    is_whole = sound.duration is None or (sound.offset == 0 and sound.duration >= seconds - ROUNDING)
    if not is_whole:
        end = min(end, start + round((sound.duration or 0) * SAMPLE_RATE))
    return waveform[start:end]
