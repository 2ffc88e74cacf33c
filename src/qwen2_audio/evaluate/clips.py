"""A row's clip as the model hears it: decoded once, cut at 30 s as the official run cuts it, named by its hash."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..audio.fetch import fetch
from ..audio.io import SAMPLE_RATE, load_with_notes, local_path
from ..audio.limits import Deadline, Limits
from ..audio.mel import WINDOW_SAMPLES
from ..datasets.row import Sound
from ..datasets.sounds import part_of
from ..errors import AudioError

LIMITS = Limits()  # three hours: a long recording's first window is still heard


@dataclass(frozen=True)
class EncodedClip:
    """A clip's bytes as they lie on disk, not decoded yet."""

    data: bytes
    sound: Sound
    sha1: str  # of the bytes, and of the part that is meant


@dataclass(frozen=True)
class HeardClip:
    """A clip's samples, and how much of it they are."""

    waveform: np.ndarray  # float32 [S], 16 kHz, at most 480,000 unless it is whole
    seconds: float  # of the clip
    notes: tuple[str, ...] = ()  # sentences on what of its file was lost

    @property
    def heard(self) -> float:
        """Seconds that the model is given."""
        return len(self.waveform) / SAMPLE_RATE

    @property
    def is_cut(self) -> bool:
        return self.seconds > self.heard


def read_clip(sound: Sound) -> EncodedClip:
    """The bytes of a sound. Raises AudioError where they cannot be had."""
    data = _bytes_of(sound)
    digest = hashlib.sha1(data)
    if sound.offset or sound.duration is not None:
        digest.update(f"|{sound.offset!r}|{sound.duration!r}".encode())
    return EncodedClip(data, sound, digest.hexdigest())


def decode_clip(clip: EncodedClip, *, whole: bool = False) -> HeardClip:
    """The first 30 s of a clip, as the official run's feature extractor keeps them; or all of it. Raises AudioError."""
    waveform, notes = load_with_notes(clip.data, limits=LIMITS, name=clip.sound.name)
    part = part_of(waveform, clip.sound)
    return HeardClip(part if whole else part[:WINDOW_SAMPLES], len(part) / SAMPLE_RATE, notes)


def _bytes_of(sound: Sound) -> bytes:
    if not isinstance(sound.source, str):
        try:
            return sound.source.read()
        except OSError as error:
            raise AudioError(f"{sound.name} cannot be read: {error}.") from error
    source = sound.source
    if source.startswith(("http://", "https://")):
        with fetch(source, LIMITS, Deadline(LIMITS.deadline)) as file:
            return file.read()
    path = Path(local_path(source) if source.startswith("file://") else source)
    try:
        LIMITS.check_bytes(path.stat().st_size, source)
        return path.read_bytes()
    except OSError as error:
        raise AudioError(f"{source} cannot be read: {error.strerror}.") from error


def wav_bytes(waveform: np.ndarray) -> bytes:
    """A WAV file, 16-bit mono at 16 kHz: the form in which every server takes a clip."""
    import io
    import wave

    samples = np.clip(np.rint(waveform * 32768), -32768, 32767).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE)
        out.writeframes(samples.tobytes())
    return file.getvalue()
