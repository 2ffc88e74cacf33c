"""Text to speech by espeak-ng, flite and festival, run as programs."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tempfile
import wave
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import soxr

from ....errors import EvaluationError
from ..sounds.dsp import RATE, Array
from .variants import PER_FOLDER, PREFIX, data_folder
from .voices import Manner, Voice

WORDS_A_MINUTE = 165
QUIET = 0.02  # of the loudest sample: what is quieter, before and after the words, is cut off
MARGIN = 0.06  # seconds kept around the words
SENTINEL = "orders-done"  # festival prints it after each sentence
KED = Path("/usr/share/festival/voices/english/ked_diphone")  # festival's second American; the first is flite's kal


def check_engines(*, training: bool = False) -> None:
    """The examination needs espeak-ng and flite, training festival too. Raises EvaluationError where one is missing."""
    missing = [name for name in ("espeak-ng", "flite") if shutil.which(name) is None]
    if training and (shutil.which("festival") is None or not KED.is_dir()):
        missing.append("festival (with festvox-kdlpc16k)")
    if missing:
        raise EvaluationError(
            f"{' and '.join(missing)} cannot be found, and nano's speech is made by them; install them "
            "(Debian: apt-get install espeak-ng flite festival festvox-kdlpc16k)."
        )


def say(text: str, voice: Voice, manner: Manner) -> Array:
    """`text` spoken: float64 [n] at 16 kHz, without the silence around it."""
    if voice.engine == "espeak":
        samples, rate = espeak(text, f"{manner.accent}+{voice.name}", manner.pitch, manner.pace)
    elif voice.engine == "festival":
        samples, rate = festival(text, voice.name, manner.pitch, manner.pace)
    else:
        samples, rate = flite(text, voice.name, manner.pitch, manner.pace)
    spoken = np.asarray(soxr.resample(samples, rate * manner.formant_scale, RATE, quality="MQ"), np.float64)
    start, end = speech_span(spoken)
    return spoken[start:end]


def espeak(text: str, name: str, pitch: float = 50, pace: float = 1.0) -> tuple[Array, int]:
    """float64 [n] within -1..1, and its rate."""
    speed = str(round(WORDS_A_MINUTE * pace))
    drawn = re.search(rf"{PREFIX}(\d+)$", name)
    path = [f"--path={data_folder(_espeak_data(), int(drawn[1]) // PER_FOLDER)}"] if drawn else []
    command = ["espeak-ng", *path, "-v", name, "-p", str(round(pitch)), "-s", speed, "--stdout", "--", text]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    with wave.open(io.BytesIO(data)) as file:  # written to a pipe, its header promises more samples than there are
        rate, start = file.getframerate(), data.index(b"data") + 8
    return np.frombuffer(data[start : start + (len(data) - start) // 2 * 2], "<i2") / 32768.0, rate


@cache
def _espeak_data() -> Path:
    version = subprocess.run(["espeak-ng", "--version"], capture_output=True, check=True, text=True).stdout
    return Path(version.split("Data at:")[1].strip())


def flite(text: str, name: str, pitch: float = 0, pace: float = 1.0) -> tuple[Array, int]:
    """float64 [n] within -1..1, and its rate; pitch 0 leaves the voice its own."""
    options = ["--setf", f"duration_stretch={1 / pace:.3f}"]
    options += ["--setf", f"int_f0_target_mean={pitch:.0f}"] if pitch else []
    command = ["flite", "-voice", name, *options, "-t", text, "-o"]
    return _read_written(lambda path: subprocess.run([*command, path], check=True, capture_output=True))


def festival(text: str, name: str, pitch: float = 0, pace: float = 1.0) -> tuple[Array, int]:
    """As `flite`. One process speaks every sentence: its start takes thirty times as long as a sentence."""
    intonation = f"(set! int_lr_params '((target_f0_mean {pitch:.0f}) (target_f0_std {pitch / 8:.0f})"
    intonation += " (model_f0_mean 170) (model_f0_std 34)))"
    plain = re.sub(r'["\\\n]', " ", text)
    expressions = [
        f"(voice_{name}_diphone)",  # also resets the intonation of the sentence before
        f"(Parameter.set 'Duration_Stretch {1.1 / pace:.3f})",
        *([intonation] if pitch else []),
        f'(set! spoken (utt.synth (Utterance Text "{plain}")))',
    ]
    try:
        return _read_written(
            lambda path: _run_in_festival([*expressions, f'(utt.save.wave spoken "{path}" (quote riff))'])
        )
    except FileNotFoundError as error:
        raise EvaluationError(f"festival could not say {text!r} with the voice {name}.") from error


def _run_in_festival(expressions: list[str]) -> None:
    """Let festival evaluate them, up to the first that fails. Raises EvaluationError where festival itself ends."""
    process = _festival_process(os.getpid())  # a forked child must not write into its parent's
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(f'(begin {" ".join(expressions)})\n(format t "{SENTINEL}\\n")\n(fflush nil)\n')
        process.stdin.flush()
        while SENTINEL not in (line := process.stdout.readline()):
            if not line:
                raise BrokenPipeError
    except BrokenPipeError:
        _festival_process.cache_clear()
        status = process.wait()
        process.stdout.close()
        with suppress(BrokenPipeError):  # of what it has not read
            process.stdin.close()
        raise EvaluationError(f"festival stopped (exit {status}) at: {' '.join(expressions)}") from None


@cache
def _festival_process(_pid: int) -> subprocess.Popen[str]:
    """festival, reading from a pipe. It ends with this process, which closes the pipe."""
    pipe = subprocess.PIPE
    return subprocess.Popen(["festival", "--pipe"], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)


def _read_written(write: Callable[[str], object]) -> tuple[Array, int]:
    """The samples and the rate of the WAV file that `write` writes to the path it is given."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "speech.wav")
        write(path)
        with wave.open(path) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
            return samples / 32768.0, file.getframerate()


def speech_span(x: Array) -> tuple[int, int]:
    """The first sample of the words in [n] at 16 kHz, with 0.06 s before them, and the end, with 0.06 s behind."""
    loud = np.flatnonzero(np.abs(x) > QUIET * np.abs(x).max(initial=0.0))
    if not len(loud):
        return 0, len(x)
    margin = int(MARGIN * RATE)
    return max(0, int(loud[0]) - margin), int(loud[-1]) + margin
