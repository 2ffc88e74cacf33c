"""Clips as they lie in real data sets: most are whole; one each is missing, damaged, silent, long, stereo, a film."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np

from kit.clip_files import encoded, wav_bytes

CASES = ("good", "good", "missing", "corrupt", "silent", "long", "stereo", "film")  # by a row's number; then good ones


def case(number: int) -> str:
    return CASES[number] if number < len(CASES) else "good"


def clip_bytes(number: int, healthy: bool = False) -> bytes | None:
    """The encoded clip of row `number`, unlike any other row's; None where it is missing. `healthy`: all are good."""
    kind = "good" if healthy else case(number)
    hertz = 200.0 + 40 * number
    if kind == "missing":
        return None
    if kind == "corrupt":
        return b"RIFF\x24\x00\x00\x00JUNK" + bytes(range(100, 160))
    if kind == "silent":
        return _silence(0.6 + 0.01 * number)
    if kind == "long":
        return wav_bytes(35.0, hertz=hertz)
    if kind == "stereo":
        return stereo_bytes(0.5, hertz)
    if kind == "film":
        return encoded("mp4", "aac", 0.5)
    return wav_bytes(0.5 + 0.02 * number, hertz=hertz)


def write_clip(path: Path, number: int, healthy: bool = False) -> Path:
    """Write row `number`'s clip, whatever the path's ending says, unless it is the missing one."""
    data = clip_bytes(number, healthy)
    path.parent.mkdir(parents=True, exist_ok=True)
    if data is not None:
        path.write_bytes(data)
    return path


def stereo_bytes(seconds: float, hertz: float = 440.0, rate: int = 44_100) -> bytes:
    """A WAV file with two channels at 44.1 kHz."""
    times = np.arange(round(seconds * rate)) / rate
    channels = np.stack([0.3 * np.sin(2 * np.pi * hertz * times), 0.2 * np.sin(4 * np.pi * hertz * times)], axis=1)
    return _wave_file((channels * 32767).astype("<i2").tobytes(), 2, rate)


def _silence(seconds: float) -> bytes:
    return _wave_file(bytes(2 * round(seconds * 16_000)), 1, 16_000)


def _wave_file(data: bytes, channels: int, rate: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(data)
    return file.getvalue()
