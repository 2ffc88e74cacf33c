"""The clips of a row: decoded completely or refused; and their length from the header, without decoding."""

from __future__ import annotations

import io
import warnings
import wave
from contextlib import closing
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..audio.arrays import check_peak, from_array
from ..audio.decode import EncodedSound, read_header
from ..audio.fetch import fetch, read_data_uri
from ..audio.io import SoundWarning, read_plain_wav
from ..audio.limits import Deadline, Limits
from ..audio.resample import SAMPLE_RATE
from ..errors import AudioError
from ..inputs.clip import AudioClip, clip_from_waveform
from . import shards
from .clip_sources import Segment

# A str is an http(s) URL or a data: URI; a tuple is samples and their rate in Hz.
Source = Path | bytes | str | tuple[Any, Any] | Segment
SEGMENT_ROUNDING = 0.05  # s: bounds this near to a clip's end are its end
UNKNOWN_SECONDS = 10.0  # of a clip behind a URL, which is not fetched just to sort rows by length


def read_clip(source: Source, number: int) -> AudioClip:
    """Decode clip `number` of a row, once.

    Raises AudioError where the model would not hear all of it, and also for a damaged clip: `audio.load` returns the
    intact part with a warning, but the answer of the row is about the whole clip.
    """
    return clip_from_waveform(_decode(source, number), f"Clip {number}")


def _decode(source: Source, number: int) -> np.ndarray:
    """float32 [S] at 16 kHz. Raises AudioError."""
    limits = Limits()
    if isinstance(source, tuple):
        return from_array(*source, limits)
    if isinstance(source, Segment):
        return _decode_segment(source, number)
    deadline = Deadline(limits.deadline)
    name, file = _open(source, number, limits, deadline)
    with closing(file):
        waveform = read_plain_wav(file, name, limits)
        if waveform is None:
            sound = EncodedSound(file, name, limits, deadline)
            waveform = sound.decode()
            if sound.damage:
                raise AudioError(sound.damage)
            if sound.note:
                warnings.warn(sound.note, SoundWarning, stacklevel=2)
            check_peak(waveform, f"Clip {number}")
    return waveform


def _decode_segment(segment: Segment, number: int) -> np.ndarray:
    """The samples of a segment, as librosa's `load(offset=, duration=)` cuts them: before resampling where the file is
    WAV, else after decoding. Raises AudioError where the clip ends before the segment does."""
    part = _wav_segment(segment, number) if isinstance(segment.source, Path | bytes) else None
    if part is not None:
        return _decode(part, number)
    waveform = _decode(segment.source, number)
    first, last = _bounds(segment, len(waveform), SAMPLE_RATE, number)
    return waveform[first:last]


def _wav_segment(segment: Segment, number: int) -> bytes | None:
    """A segment of a WAV file of PCM as a WAV file of its own, read without the rest; None for other files."""
    limits = Limits()
    _, file = _open(segment.source, number, limits, Deadline(limits.deadline))
    out = io.BytesIO()
    with closing(file):
        try:
            with wave.open(file) as wav:
                first, last = _bounds(segment, wav.getnframes(), wav.getframerate(), number)
                wav.setpos(first)
                frames = wav.readframes(last - first)
                with wave.open(out, "wb") as part:
                    part.setparams(wav.getparams())
                    part.writeframes(frames)
        except (wave.Error, EOFError, RuntimeError, ZeroDivisionError):
            return None
    return out.getvalue()


def _bounds(segment: Segment, samples: int, rate: float, number: int) -> tuple[int, int]:
    """First sample of the segment, and the one after its last."""
    first = round(segment.offset * rate)
    last = samples if segment.seconds is None else first + round(segment.seconds * rate)
    if abs(last - samples) <= SEGMENT_ROUNDING * rate:
        last = samples
    if last > samples or first >= last:
        end = "its end" if segment.seconds is None else f"{segment.offset + segment.seconds:g} s"
        raise AudioError(
            f"Clip {number} lasts {samples / rate:.2f} s, and the row asks for it from {segment.offset:g} s to {end}."
        )
    return first, last


def seconds_of(source: Source) -> float:
    """Seconds by the header, exact enough to sort rows by length. Raises AudioError where there is no audio."""
    if isinstance(source, Segment):
        whole = seconds_of(source.source)
        return whole - source.offset if source.seconds is None else source.seconds
    if isinstance(source, tuple):
        return len(from_array(*source, Limits())) / SAMPLE_RATE
    if isinstance(source, str) and source[:5].lower() != "data:":
        return UNKNOWN_SECONDS
    limits = Limits()
    _, file = _open(source, 1, limits, Deadline(limits.deadline))
    with closing(file):
        try:
            with wave.open(file) as wav:
                return float(wav.getnframes() / wav.getframerate())
        except (wave.Error, EOFError, RuntimeError, ZeroDivisionError):  # not a WAV file of PCM, or its rate is 0
            return read_header(file).seconds or UNKNOWN_SECONDS


def _open(source: Any, number: int, limits: Limits, deadline: Deadline) -> tuple[str, IO[bytes]]:
    """What messages call the clip, and its encoded bytes. Raises AudioError."""
    if isinstance(source, bytes):
        return f"Clip {number}", io.BytesIO(source)
    if isinstance(source, Path):
        try:
            member = shards.split(source)
            if member is not None:
                return str(source), shards.open_member(*member)
            if not source.is_file():
                raise AudioError(f"No such file: {source}. Relative paths start at the data file's folder.")
            return str(source), source.open("rb")
        except OSError as error:  # is_file raises it, too: a name that is too long, a folder without permission
            raise AudioError(f"{source} cannot be read: {error.strerror}.") from error
    if source[:5].lower() == "data:":
        return f"Clip {number}", io.BytesIO(read_data_uri(source, limits))
    return source, fetch(source, limits, deadline)
