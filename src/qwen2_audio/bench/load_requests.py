"""The requests of `bench load`: when each is sent, and its body."""

from __future__ import annotations

import base64
import io
import json
import random
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..audio.resample import SAMPLE_RATE
from ..errors import AudioError
from .clips import clip_variant

QUESTION = "What's that sound?"
SHORTEST, LONGEST = 2.0, 10.0  # seconds of a synthetic clip
FORMATS = {"mpga": "mp3", "mpeg": "mp3", "wave": "wav"}  # by a file's suffix; others are called what it says


@dataclass(frozen=True)
class Clip:
    """A clip as it is sent."""

    data: str  # base64
    format: str


def arrivals(rate: float, count: int, seed: int) -> list[float]:
    """Seconds at which to send `count` requests: a Poisson process of `rate` a second, the first one at 0."""
    draw = random.Random(seed)
    times = [0.0]
    while len(times) < count:
        times.append(times[-1] + draw.expovariate(rate))
    return times


def read_clips(paths: Sequence[Path]) -> list[Clip]:
    """Files as they are. Raises AudioError for one that cannot be read."""
    clips = []
    for path in paths:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise AudioError(f"Cannot read {path}: {error.strerror}; expected a sound file.") from error
        suffix = path.suffix.lower().lstrip(".")
        clips.append(Clip(base64.b64encode(data).decode("ascii"), FORMATS.get(suffix, suffix or "wav")))
    return clips


def synthetic_clip(number: int, seed: int) -> Clip:
    """The clip of request `number`: 2 to 10 s of a tone over noise, no two the same, so that no cache answers."""
    draw = random.Random(f"{seed} {number}")
    waveform = clip_variant(round(draw.uniform(SHORTEST, LONGEST), 2), draw.randrange(1 << 30))
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((waveform * 32767).astype(np.int16).tobytes())
    return Clip(base64.b64encode(out.getvalue()).decode("ascii"), "wav")


def body(model: str, clip: Clip, max_tokens: int) -> bytes:
    """A streamed chat completion about `clip`, greedy."""
    audio = {"type": "input_audio", "input_audio": {"data": clip.data, "format": clip.format}}
    request = {
        "model": model,
        "messages": [{"role": "user", "content": [audio, {"type": "text", "text": QUESTION}]}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return json.dumps(request).encode()
