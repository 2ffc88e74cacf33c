"""Batches for both stages. A batch depends on the seed and the step alone: a resumed run sees what it would have seen.

A clips, F mel frames, B conversations, T positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qwen2_audio.text.chat import AUDIO, AUDIO_BOS, AUDIO_EOS, AudioSlot, Piece, encode_pieces, walk
from qwen2_audio.text.tokenizer import Tokenizer

from .clips import Library
from .conversations import CAPTION_PROMPT, Conversation, Writer
from .sounds.kinds import NAMES

GROUP = 16  # batches drawn together and sorted by length, so that little is padded
SILENCE = -1.5  # log-mel of digital silence
RANGE = 2.0  # log-mel below the clip's maximum at which the front end cuts (8 decades / 4)
IGNORED = -100


@dataclass(frozen=True)
class EncoderBatch:
    """Clips and their kinds."""

    features: torch.Tensor  # float32 [A, 128, F]
    lengths: list[int]  # valid mel frames
    kinds: torch.Tensor  # int64 [A]


def augmented(mel: np.ndarray, rng: np.random.Generator, gain: bool) -> np.ndarray:
    """A log-mel [128, F] as another microphone would have given it: level, tilt, a missing band, a short gap."""
    if rng.random() < 0.35 or mel.max() <= SILENCE + 0.2:  # silence stays what it is
        return mel
    out = mel.copy()
    if gain:
        out += rng.uniform(-10, 8) / 40  # dB: log-mel is log10(power) / 4
    out += rng.uniform(-0.2, 0.2) * np.linspace(-1, 1, len(out), dtype=np.float32)[:, None]
    low = out.min()
    if rng.random() < 0.5:
        at, width = rng.integers(0, 118), rng.integers(2, 14)
        out[at : at + width] = low
    if rng.random() < 0.3:
        width = max(1, int(out.shape[1] * rng.uniform(0.01, 0.08)))
        at = rng.integers(0, out.shape[1] - width + 1)
        out[:, at : at + width] = low
    return np.maximum(out, max(SILENCE, out.max() - RANGE))


def stack(mels: Sequence[np.ndarray]) -> torch.Tensor:
    """Log-mels of several lengths -> float32 [A, 128, F], filled with silence."""
    out = np.full((len(mels), 128, max((m.shape[1] for m in mels), default=0)), SILENCE, np.float32)
    for row, mel in zip(out, mels, strict=True):
        row[:, : mel.shape[1]] = mel
    return torch.from_numpy(out)


def _grouped(items: list[Any], cost: Callable[[Any], int], size: int, rng: np.random.Generator) -> list[list[Any]]:
    items = sorted(items, key=cost)
    batches = [items[i : i + size] for i in range(0, len(items), size)]
    return [batches[i] for i in rng.permutation(len(batches))]


class EncoderStream:
    """Clips in random order with their kinds: what the encoder is first trained on."""

    def __init__(self, library: Library, batch: int, seed: int) -> None:
        self.library, self.batch, self.seed = library, batch, seed
        self._group: tuple[int, list[list[int]]] = (-1, [])

    def __call__(self, step: int) -> EncoderBatch:
        number = step // GROUP
        if self._group[0] != number:
            rng = np.random.default_rng((self.seed, 1, number))
            drawn = self._drawn(rng, GROUP * self.batch)
            self._group = (number, _grouped(drawn, lambda i: self.library.entries[i].frames, self.batch, rng))
        ids = self._group[1][step % GROUP]
        rng = np.random.default_rng((self.seed, 2, step))
        features = stack([augmented(self.library.mel(i), rng, gain=True) for i in ids])
        entries = [self.library.entries[i] for i in ids]
        kinds = torch.tensor([NAMES.index(entry.clip.kind) for entry in entries])
        return EncoderBatch(features, [entry.frames for entry in entries], kinds)

    def _drawn(self, rng: np.random.Generator, count: int) -> list[int]:
        drawn: list[int] = []
        while len(drawn) < count:
            i = int(rng.integers(len(self.library)))
            if self.library.entries[i].wanted(rng):
                drawn.append(i)
        return drawn


@dataclass(frozen=True)
class Example:
    """One conversation, tokenised."""

    ids: list[int]
    trained: list[bool]  # the loss is taken here
    clips: list[int]


def caption_pieces(caption: str) -> list[Piece]:
    """The base model's form: the documented prompt, continued by `caption` and the end of the text."""
    instruction = CAPTION_PROMPT.removeprefix(AUDIO_BOS + AUDIO + AUDIO_EOS)
    return [
        Piece(AUDIO_BOS, control=True),
        Piece(AUDIO, control=True, slot=AudioSlot(1, None, "prompt")),
        Piece(AUDIO_EOS, control=True),
        Piece(instruction),
        Piece(caption, trained=True),
        Piece("<|endoftext|>", control=True, trained=True),
    ]


def tokenised(conversation: Conversation, tokenizer: Tokenizer, library: Library) -> Example:
    """Ids with the audio positions in place, and the loss mask, from one walk over the template."""
    pieces = walk(conversation.messages) if conversation.caption is None else caption_pieces(conversation.caption)
    ids, trained = encode_pieces(pieces, tokenizer, [library.entries[i].tokens for i in conversation.clips])
    return Example(ids, trained, conversation.clips)


class ConversationStream:
    """Conversations about clips, as keyword arguments of the model's forward."""

    def __init__(self, library: Library, tokenizer: Tokenizer, batch: int, seed: int) -> None:
        self.library, self.tokenizer, self.batch, self.seed = library, tokenizer, batch, seed
        self.writer = Writer(
            [entry.clip for entry in library.entries], library.by_kind, lambda i, rng: library.entries[i].wanted(rng)
        )
        self._group: tuple[int, list[list[Example]]] = (-1, [])

    def __call__(self, step: int) -> dict[str, torch.Tensor | None]:
        number = step // GROUP
        if self._group[0] != number:
            rng = np.random.default_rng((self.seed, 3, number))
            drawn = [tokenised(self.writer.write(rng), self.tokenizer, self.library) for _ in range(GROUP * self.batch)]
            self._group = (number, _grouped(drawn, lambda example: len(example.ids), self.batch, rng))
        return self.collated(self._group[1][step % GROUP], np.random.default_rng((self.seed, 4, step)))

    def collated(self, examples: list[Example], rng: np.random.Generator) -> dict[str, torch.Tensor | None]:
        """Right-padded ids, labels and masks [B, T]; the clips of all rows in order [A, 128, F]."""
        shape = (len(examples), max(len(example.ids) for example in examples))
        ids = torch.full(shape, self.tokenizer.pad_token_id or 0)
        labels, mask = torch.full(shape, IGNORED), torch.zeros(shape, dtype=torch.long)
        for row, example in enumerate(examples):
            n = len(example.ids)
            ids[row, :n] = torch.tensor(example.ids)
            labels[row, :n] = torch.where(torch.tensor(example.trained), ids[row, :n], IGNORED)
            mask[row, :n] = 1
        clips = [i for example in examples for i in example.clips]
        features = stack([augmented(self.library.mel(i), rng, gain=False) for i in clips]) if clips else None
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "labels": labels,
            "input_features": features,
            "feature_attention_mask": self._frame_mask(clips, features),
        }

    def _frame_mask(self, clips: list[int], features: torch.Tensor | None) -> torch.Tensor | None:
        if features is None:
            return None
        lengths = torch.tensor([self.library.entries[i].frames for i in clips])
        return (torch.arange(features.shape[-1])[None] < lengths[:, None]).int()
