"""Text to sound: espeak-ng, flite and festival as programs."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tempfile
import wave
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import soxr

from ....errors import EvaluationError
from ..sounds.dsp import RATE
from .variants import PREFIX, SHELF, data_folder
from .voices import Manner, Voice

WORDS_A_MINUTE = 165
QUIET = 0.02  # of the loudest: what is below, before and after the words, is cut
MARGIN = 0.06  # seconds kept around the words
DONE = "orders-done"  # what festival says after each sentence


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


def say(text: str, voice: Voice, manner: Manner) -> np.ndarray:
    """`text` spoken: float64 [n] at 16 kHz, without the silence around it."""
    if voice.engine == "espeak":
        samples, rate = espeak(text, f"{manner.accent}+{voice.name}", manner.pitch, manner.pace)
    elif voice.engine == "festival":
        samples, rate = festival(text, voice.name, manner.pitch, manner.pace)
    else:
        samples, rate = flite(text, voice.name, manner.pitch, manner.pace)
    spoken = soxr.resample(samples, rate * manner.throat, RATE, quality="MQ")
    return _cut(np.asarray(spoken, np.float64))


def espeak(text: str, name: str, pitch: float = 50, pace: float = 1.0) -> tuple[np.ndarray, int]:
    """float64 [n] within -1..1, and its rate."""
    speed = str(round(WORDS_A_MINUTE * pace))
    drawn = re.search(rf"{PREFIX}(\d+)$", name)
    where = [f"--path={data_folder(_espeak_data(), int(drawn[1]) // SHELF)}"] if drawn else []
    command = ["espeak-ng", *where, "-v", name, "-p", str(round(pitch)), "-s", speed, "--stdout", "--", text]
    done = subprocess.run(command, capture_output=True, check=True)
    data = done.stdout
    with wave.open(io.BytesIO(data)) as file:  # its header promises more than there is
        rate, start = file.getframerate(), data.index(b"data") + 8
    return np.frombuffer(data[start : start + (len(data) - start) // 2 * 2], "<i2") / 32768.0, rate


@cache
def _espeak_data() -> Path:
    said = subprocess.run(["espeak-ng", "--version"], capture_output=True, check=True, text=True).stdout
    return Path(said.split("Data at:")[1].strip())


def flite(text: str, name: str, pitch: float = 0, pace: float = 1.0) -> tuple[np.ndarray, int]:
    """float64 [n] within -1..1, and its rate; pitch 0 leaves the voice its own."""
    options = ["--setf", f"duration_stretch={1 / pace:.3f}"]
    options += ["--setf", f"int_f0_target_mean={pitch:.0f}"] if pitch else []
    command = ["flite", "-voice", name, *options, "-t", text, "-o"]
    return _written(lambda path: subprocess.run([*command, path], check=True, capture_output=True))


def festival(text: str, name: str, pitch: float = 0, pace: float = 1.0) -> tuple[np.ndarray, int]:
    """As `flite`. One process speaks all: to start it takes thirty times as long as a sentence."""
    tune = f"(set! int_lr_params '((target_f0_mean {pitch:.0f}) (target_f0_std {pitch / 8:.0f})"
    tune += " (model_f0_mean 170) (model_f0_std 34)))"
    plain = re.sub(r'["\\\n]', " ", text)
    orders = [
        f"(voice_{name}_diphone)",  # also takes back the tune of the sentence before
        f"(Parameter.set 'Duration_Stretch {1.1 / pace:.3f})",
        *([tune] if pitch else []),
        f'(set! said (utt.synth (Utterance Text "{plain}")))',
    ]
    try:
        return _written(lambda path: _ordered([*orders, f'(utt.save.wave said "{path}" (quote riff))']))
    except FileNotFoundError as error:
        raise EvaluationError(f"festival could not say {text!r} with the voice {name}.") from error


def _ordered(orders: list[str]) -> None:
    """Have festival do it, up to the first order that fails. Raises EvaluationError where it stops altogether."""
    process = _festival_process(os.getpid())  # a forked child must not write into its parent's
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(f'(begin {" ".join(orders)})\n(format t "{DONE}\\n")\n(fflush nil)\n')
        process.stdin.flush()
        while DONE not in (line := process.stdout.readline()):
            if not line:
                raise BrokenPipeError
    except BrokenPipeError:
        _festival_process.cache_clear()
        raise EvaluationError(f"festival stopped (exit {process.wait()}) at: {' '.join(orders)}") from None


@cache
def _festival_process(_pid: int) -> subprocess.Popen[str]:
    """It ends with this process, as its input does."""
    pipe = subprocess.PIPE
    return subprocess.Popen(["festival", "--pipe"], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)


def _written(write: Callable[[str], object]) -> tuple[np.ndarray, int]:
    """What `write` puts at the path it is given."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "said.wav")
        write(path)
        with wave.open(path) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
            return samples / 32768.0, file.getframerate()


def _cut(x: np.ndarray) -> np.ndarray:
    loud = np.flatnonzero(np.abs(x) > QUIET * np.abs(x).max(initial=0.0))
    if not len(loud):
        return x
    margin = int(MARGIN * RATE)
    return x[max(0, loud[0] - margin) : loud[-1] + margin]
