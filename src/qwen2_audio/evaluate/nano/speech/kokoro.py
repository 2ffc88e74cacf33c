"""Human-like speech by Kokoro-82M (Apache-2.0), run by onnxruntime: a tool for training and testing, never for use.

Its files come from packages (`kokoro_files.py`). The phonemes are espeak-ng's, in Kokoro's own letters
(`kokoro_phonemes.py`). A voice is a table [510, 1, 256] of style vectors, one for each number of letters; weighted
means of several are new speakers.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soxr

from ....errors import EvaluationError
from ..sounds.dsp import RATE
from .engines import speech_span
from .kokoro_phonemes import VOCABULARY, phonemes

FOLDER_VARIABLE = "NANO_KOKORO"
FOLDER = Path("runs/nano/kokoro")
OWN_RATE = 24_000
MOST_LETTERS = 508
# The examination's: no mixture of training has a share of them. Americans and Britons, women and men.
HELD_OUT_VOICES = (
    "af_bella", "af_nova", "af_sky", "am_eric", "am_onyx", "am_puck", "bf_emma", "bf_lily", "bm_fable", "bm_george",
)  # fmt: skip
TRAINING_VOICES = (
    "af_alloy", "af_aoede", "af_heart", "af_jessica", "af_kore", "af_nicole", "af_river", "af_sarah", "am_adam",
    "am_echo", "am_fenrir", "am_liam", "am_michael", "am_santa", "bf_alice", "bf_isabella", "bm_daniel", "bm_lewis",
)  # fmt: skip

Voice = str | Mapping[str, float]
Samples = npt.NDArray[np.float32]


def folder() -> Path:
    """Where the files are: $NANO_KOKORO, or runs/nano/kokoro."""
    return Path(os.environ.get(FOLDER_VARIABLE) or FOLDER)


def available() -> str | None:
    """Why Kokoro cannot speak here, in one sentence; None where it can."""
    if shutil.which("espeak-ng") is None:
        return "espeak-ng cannot be found, which Kokoro's phonemes come from (Debian: apt-get install espeak-ng)."
    if find_spec("onnxruntime") is None:
        return "onnxruntime is not installed, which runs Kokoro: pip install onnxruntime"
    if not (folder() / "kokoro.onnx").is_file():
        return f"{folder()} has no kokoro.onnx; fetch it first: python -m recipes.nano kokoro"
    return None


def say(text: str, voice: Voice, speed: float = 1.0, *, language: str = "") -> Samples:
    """`text` spoken: float32 [n] at 16 kHz, with 0.06 s of the silence around it.

    `voice`: a name, or names and weights (of any sum) for a voice between them. `speed` is about 0.7 to 1.4; above 1
    is faster. `language`: a code of espeak-ng's where the text is not English; what Kokoro has no letters for is left
    out. Raises EvaluationError where Kokoro is not `available`, the voice is unknown, or nothing is left to say.
    """
    if reason := available():
        raise EvaluationError(reason)
    weights = {voice: 1.0} if isinstance(voice, str) else dict(voice)
    style = style_of(weights)
    british = max(weights, key=weights.__getitem__).startswith("b")
    letters = [VOCABULARY[sign] for sign in phonemes(text, british, language) if sign in VOCABULARY][:MOST_LETTERS]
    if not letters:
        raise EvaluationError(f"Kokoro has no sounds for {text!r}; give it words.")
    session, feed = _session(), dict[str, npt.NDArray[Any]]()
    for one in session.get_inputs():
        if "style" in one.name:
            feed[one.name] = style[len(letters)].reshape(1, 256)
        elif "speed" in one.name:
            feed[one.name] = np.array([speed], np.float32)
        else:
            feed[one.name] = np.array([[0, *letters, 0]], np.int64)
    spoken = np.asarray(session.run(None, feed)[0], np.float32).reshape(-1)
    samples = np.asarray(soxr.resample(spoken, OWN_RATE, RATE), np.float32)
    start, end = speech_span(samples.astype(np.float64))
    return np.clip(samples[start:end], -1, 1)


def style_of(weights: Mapping[str, float]) -> Samples:
    """The weighted mean of voices: float32 [letters, 1, 256]. Raises EvaluationError where there is none."""
    total = sum(weights.values())
    if total <= 0 or min(weights.values()) < 0:
        raise EvaluationError(f"A voice of {dict(weights)}: expected weights of 0 or more, and one above 0.")
    return np.asarray(sum(_pack(folder(), name) * (weight / total) for name, weight in weights.items()), np.float32)


@cache
def _pack(home: Path, name: str) -> Samples:
    path = home / "voices" / f"{name}.bin"
    if not path.is_file():
        known = ", ".join(sorted((*TRAINING_VOICES, *HELD_OUT_VOICES)))
        raise EvaluationError(f"Kokoro has no voice {name!r}; it has {known}.")
    return np.fromfile(path, "<f4").reshape(-1, 1, 256)


def _session() -> Any:
    return _opened(folder(), os.getpid())  # a forked child must not share its parent's threads


@cache
def _opened(home: Path, _pid: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(home / "kokoro.onnx"), options, providers=["CPUExecutionProvider"])
