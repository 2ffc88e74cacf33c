"""What both sides are given: the same clips and the same prompt, made here so that no file is needed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..audio.resample import SAMPLE_RATE

_BEFORE = (151644, 8948, 198, 2610, 525, 264, 10950, 17847, 13, 151645, 198)  # the default system turn
_OPEN = (151644, 872, 198, 14755, 220, 16, 25, 220, 151647)  # "user", "Audio 1: ", start of audio
_CLOSE = (151648, 198, 3838, 594, 429, 5112, 30, 151645, 198, 151644, 77091, 198)  # "What's that sound?", "assistant"


def clip(seconds: float) -> npt.NDArray[np.float32]:
    """A sound of `seconds` at 16 kHz, float32 [S]: a rising and falling tone over noise, the same at every call."""
    samples = round(seconds * SAMPLE_RATE)
    time = np.arange(samples) / SAMPLE_RATE
    tone = 0.3 * np.sin(2 * np.pi * (440 * time + 60 * np.sin(2 * np.pi * 0.7 * time)))
    noise = 0.05 * np.random.default_rng(0).standard_normal(samples)
    sound: npt.NDArray[np.float32] = (tone + noise).astype(np.float32)
    return sound


def prompt(num_audio_tokens: int, *, vocab_size: int, audio_id: int) -> list[int]:
    """The ids of the documented question about one clip, its placeholders expanded.

    A vocabulary too small for them (in tests) gets other ids in their places, never `audio_id`.
    """

    def fit(ids: tuple[int, ...]) -> list[int]:
        return [i if i < vocab_size and i != audio_id else i % audio_id for i in ids]

    return [*fit(_BEFORE), *fit(_OPEN), *([audio_id] * num_audio_tokens), *fit(_CLOSE)]
