"""The clips of a row: decoded completely or refused; and their length from the header, without decoding."""

from __future__ import annotations

import io
import warnings
import wave
from contextlib import closing
from pathlib import Path
from typing import IO, Any

from ..audio.arrays import check_peak
from ..audio.decode import EncodedSound, read_header
from ..audio.fetch import fetch, read_data_uri
from ..audio.io import SoundWarning, read_plain_wav
from ..audio.limits import Deadline, Limits
from ..errors import AudioError
from ..inputs.clip import AudioClip, clip_from_waveform
from . import shards

Source = Path | bytes | str  # a str is an http(s) URL or a data: URI
UNKNOWN_SECONDS = 10.0  # of a clip behind a URL, which is not fetched just to sort rows by length


def read_clip(source: Source, number: int) -> AudioClip:
    """Decode clip `number` of a row, once.

    Raises AudioError where the model would not hear all of it, and also for a damaged clip: `audio.load` returns the
    intact part with a warning, but the answer of the row is about the whole clip.
    """
    limits = Limits()
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
    return clip_from_waveform(waveform, f"Clip {number}")


def seconds_of(source: Source) -> float:
    """Seconds by the header, exact enough to sort rows by length. Raises AudioError where there is no audio."""
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
