"""A recording whose words and times are known: sentences of nano's world by several synthetic voices, with pauses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qwen2_audio.evaluate.nano.speech.engines import check_engines, say
from qwen2_audio.evaluate.nano.speech.voices import draw_manner, draw_voice
from qwen2_audio.evaluate.nano.world import sentences
from qwen2_audio.evaluate.nano.world.utterance import split_of

RATE = 16_000
LEVEL = 0.05  # root mean square of each utterance
PAUSES = (0.6, 2.0)  # s
VOICES = 6
_MAKERS = (
    sentences.happening, sentences.place, sentences.people, sentences.weather, sentences.train, sentences.wish,
    sentences.name,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Recording:
    """`samples` float32 [n] at 16 kHz; the utterances' texts and where they lie in it: first sample, end."""

    samples: np.ndarray
    texts: list[str]
    spans: list[tuple[int, int]]

    def utterances(self) -> list[np.ndarray]:
        return [self.samples[start:end] for start, end in self.spans]

    def in_noise(self, decibels: float) -> Recording:
        """The same in pink noise, `decibels` below the speech."""
        count = len(self.samples)
        frequencies = np.fft.rfftfreq(count, 1 / RATE)
        frequencies[0] = frequencies[1]
        white = np.random.default_rng(1).normal(size=count)
        pink = np.fft.irfft(np.fft.rfft(white) / np.sqrt(frequencies), count)
        pink *= LEVEL * 10 ** (-decibels / 20) / np.sqrt((pink**2).mean())
        return Recording((self.samples + pink).astype(np.float32), self.texts, self.spans)


def record(seconds: float, seed: int = 7) -> Recording:
    """At least `seconds` of sentences that nano was not trained on. Raises EvaluationError without synthesisers."""
    check_engines()
    rng = np.random.default_rng(seed)
    voices = [(voice, draw_manner(rng, voice)) for voice in (draw_voice(rng, "variant") for _ in range(VOICES))]
    parts, texts, spans = list[np.ndarray](), list[str](), list[tuple[int, int]]()
    position = 0
    while position < seconds * RATE:
        text = _MAKERS[int(rng.integers(len(_MAKERS)))](rng).text
        if split_of(text) == "train":
            continue
        voice, manner = voices[int(rng.integers(VOICES))]
        spoken = say(text, voice, manner)
        spoken = spoken * LEVEL / np.sqrt((spoken**2).mean())
        pause = round(RATE * rng.uniform(*PAUSES))
        parts += [np.zeros(pause, np.float32), spoken.astype(np.float32)]
        texts.append(text)
        spans.append((position + pause, position + pause + len(spoken)))
        position = spans[-1][1]
    return Recording(np.concatenate([*parts, np.zeros(RATE, np.float32)]), texts, spans)
