"""Text to sound: espeak-ng and flite as programs."""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np
import soxr

from ..sounds.dsp import RATE
from .voices import Manner, Voice

WORDS_A_MINUTE = 165
QUIET = 0.02  # of the loudest: what is below, before and after the words, is cut
MARGIN = 0.06  # seconds kept around the words


def check_engines() -> None:
    """Raises RuntimeError where a synthesiser is missing."""
    missing = [name for name in ("espeak-ng", "flite") if shutil.which(name) is None]
    if missing:
        raise RuntimeError(
            f"{' and '.join(missing)} cannot be found, and nano's speech is made by espeak-ng and flite; install them "
            "(Debian: apt-get install espeak-ng flite)."
        )


def say(text: str, voice: Voice, manner: Manner) -> np.ndarray:
    """`text` spoken: float64 [n] at 16 kHz, without the silence around it."""
    if voice.engine == "espeak":
        samples, rate = espeak(text, f"{manner.accent}+{voice.name}", manner.pitch, manner.pace)
    else:
        samples, rate = flite(text, voice.name, manner.pitch, manner.pace)
    spoken = soxr.resample(samples, rate * manner.throat, RATE, quality="MQ")
    return _cut(np.asarray(spoken, np.float64))


def espeak(text: str, name: str, pitch: float = 50, pace: float = 1.0) -> tuple[np.ndarray, int]:
    """float64 [n] within -1..1, and its rate."""
    speed = str(round(WORDS_A_MINUTE * pace))
    command = ["espeak-ng", "-v", name, "-p", str(round(pitch)), "-s", speed, "--stdout", "--", text]
    done = subprocess.run(command, capture_output=True, check=True)
    data = done.stdout
    with wave.open(io.BytesIO(data)) as file:  # its header promises more than there is
        rate, start = file.getframerate(), data.index(b"data") + 8
    return np.frombuffer(data[start : start + (len(data) - start) // 2 * 2], "<i2") / 32768.0, rate


def flite(text: str, name: str, pitch: float = 0, pace: float = 1.0) -> tuple[np.ndarray, int]:
    """float64 [n] within -1..1, and its rate; pitch 0 leaves the voice its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "said.wav"
        options = ["--setf", f"duration_stretch={1 / pace:.3f}"]
        options += ["--setf", f"int_f0_target_mean={pitch:.0f}"] if pitch else []
        subprocess.run(["flite", "-voice", name, *options, "-t", text, "-o", str(path)], check=True)
        with wave.open(str(path)) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
            return samples / 32768.0, file.getframerate()


def _cut(x: np.ndarray) -> np.ndarray:
    loud = np.flatnonzero(np.abs(x) > QUIET * np.abs(x).max(initial=0.0))
    if not len(loud):
        return x
    margin = int(MARGIN * RATE)
    return x[max(0, loud[0] - margin) : loud[-1] + margin]
