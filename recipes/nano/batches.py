"""Batches of clips for the encoder's first stage. A batch depends on the seed and the step alone: a resumed run sees
what it would have seen.

A clips, F mel frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from qwen2_audio.distributed.process_group import Processes
from qwen2_audio.evaluate.nano.mix import SPEECH, STRANGE, Clip
from qwen2_audio.evaluate.nano.sounds.kinds import NAMES
from qwen2_audio.evaluate.nano.world.utterance import plain
from qwen2_audio.train.augment import vtlp

from .clips import Library

GROUP = 16  # batches drawn together and sorted by length, so that little is padded
SILENCE = -1.5  # log-mel of digital silence
RANGE = 2.0  # log-mel below the clip's maximum at which the front end cuts (8 decades / 4)
CLASSES = (*NAMES, SPEECH, STRANGE)
LETTERS = " abcdefghijklmnopqrstuvwxyz'"  # CTC's labels from 1 on; 0 is the blank
NO_SEX = -100
SHORT = 2.5  # seconds; clips up to here are never passed over, longer ones cost more and teach no more


@dataclass(frozen=True)
class EncoderBatch:
    """Clips and what is known about them."""

    features: torch.Tensor  # float32 [A, 128, F]
    lengths: list[int]  # valid mel frames
    kinds: torch.Tensor  # float32 [A, classes]: shares, halved for speech over a sound
    sexes: torch.Tensor  # int64 [A]: 0 man, 1 woman, NO_SEX
    spoken: list[int]  # the clips with words
    letters: list[list[int]]  # of those
    clips: list[Clip]


def letters_of(text: str) -> list[int]:
    return [LETTERS.index(letter) + 1 for letter in plain(text)]


def kind_shares(clip: Clip) -> list[float]:
    """What there is to hear, as a distribution over CLASSES."""
    heard = [clip.kind, clip.background] if clip.background else [clip.kind]
    return [heard.count(name) / len(heard) for name in CLASSES]


def augmented(mel: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A log-mel [128, F] of another speaker and microphone: formants, level, tilt, missing bands, short gaps."""
    if rng.random() < 0.2 or mel.max() <= SILENCE + 0.2:  # silence stays what it is
        return mel
    out = vtlp(mel, rng.uniform(0.87, 1.15), 0.05, rng) if rng.random() < 0.7 else mel.copy()
    out += rng.uniform(-10, 8) / 40  # dB: log-mel is log10(power) / 4
    out += rng.uniform(-0.2, 0.2) * np.linspace(-1, 1, len(out), dtype=np.float32)[:, None]
    low = out.min()
    for _ in range(rng.integers(0, 3)):
        at, width = int(rng.integers(0, 118)), int(rng.integers(2, 14))
        out[at : at + width] = low
    if rng.random() < 0.4:
        width = max(1, int(out.shape[1] * rng.uniform(0.01, 0.06)))
        at = rng.integers(0, out.shape[1] - width + 1)
        out[:, at : at + width] = low
    return np.maximum(out, max(SILENCE, out.max() - RANGE))


def stack(mels: Sequence[np.ndarray]) -> torch.Tensor:
    """Log-mels of several lengths -> float32 [A, 128, F], filled with silence."""
    out = np.full((len(mels), 128, max((m.shape[1] for m in mels), default=0)), SILENCE, np.float32)
    for row, mel in zip(out, mels, strict=True):
        row[:, : mel.shape[1]] = mel
    return torch.from_numpy(out)


class EncoderStream:
    """Clips in random order with what is known about them; with several processes, this one's share of each batch.

    Clips longer than `short` seconds are passed over the more often the longer they are.
    """

    def __init__(
        self, library: Library, batch: int, seed: int, here: Processes | None = None, short: float = SHORT
    ) -> None:
        self.library, self.batch, self.seed, self.here = library, batch, seed, here or Processes()
        self.short = short
        self._group: tuple[int, list[list[int]]] = (-1, [])

    def __call__(self, step: int) -> EncoderBatch:
        number = step // GROUP
        if self._group[0] != number:
            self._group = (number, self._drawn(np.random.default_rng((self.seed, 1, number))))
        rng = np.random.default_rng((self.seed, 2, step, self.here.rank))
        return self.collated(self._group[1][step % GROUP][self.here.rank :: self.here.size], rng)

    def collated(self, ids: list[int], rng: np.random.Generator | None) -> EncoderBatch:
        """Without a generator: the clips as they are."""
        entries = [self.library.entries[i] for i in ids]
        mels = [self.library.mel(i) for i in ids]
        sexes = [("man", "woman").index(e.clip.sex) if e.clip.sex else NO_SEX for e in entries]
        spoken = [place for place, e in enumerate(entries) if e.clip.text]
        return EncoderBatch(
            stack([augmented(mel, rng) for mel in mels] if rng is not None else mels),
            [e.frames for e in entries],
            torch.tensor([kind_shares(e.clip) for e in entries]),
            torch.tensor(sexes),
            spoken,
            [letters_of(entries[place].clip.text) for place in spoken],
            [e.clip for e in entries],
        )

    def _drawn(self, rng: np.random.Generator) -> list[list[int]]:
        drawn: list[int] = []
        while len(drawn) < GROUP * self.batch:
            i = int(rng.integers(len(self.library)))
            if rng.random() < (self.short / max(self.short, self.library.entries[i].clip.seconds)) ** 3:
                drawn.append(i)
        drawn.sort(key=lambda i: self.library.entries[i].frames)
        batches = [drawn[at : at + self.batch] for at in range(0, len(drawn), self.batch)]
        return [batches[i] for i in rng.permutation(len(batches))]
