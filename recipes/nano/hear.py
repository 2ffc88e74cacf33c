"""The encoder learns other voices, while the language model behind it keeps what it knows.

New heads are taught on the frozen encoder first; then all of the encoder learns letters, kinds and sexes, a third of
each batch on the clips of the first lessons. What the projector gives for those is held near what it was: the mean
square of the difference, divided by the variance.

A clips, N audio tokens, H the language model's width.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn

from qwen2_audio.distributed.process_group import Processes
from qwen2_audio.model.qwen2_audio import Qwen2AudioForConditionalGeneration
from qwen2_audio.train.precision import fast_bfloat16

from .batches import EncoderBatch, EncoderStream
from .clips import Library
from .ctc import Listener
from .loop import Stage

HEADS = Stage("heads", steps=150, batch=32, lr=3e-3, warmup=20, decay_from=0.7)
HEAR = Stage("hear", steps=5400, batch=32, lr=1.8e-3, warmup=60, decay_from=0.4)
HOLD_WEIGHT = 0.7
OLD = 0.3  # of each batch: clips of the first lessons
WINDOW = 6.0  # s; new clips that long are never passed over: several utterances have to be heard, too


class MixedStream:
    """Batches of old clips and new ones; with several processes, this one's share of each."""

    def __init__(self, old: Library, new: Library, stage: Stage, seed: int, here: Processes) -> None:
        count = round(OLD * stage.batch)
        self.old = EncoderStream(old, count, seed + 31, here)
        self.new = EncoderStream(new, stage.batch - count, seed + 32, here, WINDOW)

    def __call__(self, step: int) -> tuple[EncoderBatch, EncoderBatch]:
        return self.old(step), self.new(step)


class Hearing(Listener):
    """The encoder with new heads, and the encoder and projector that it was."""

    def __init__(self, model: Qwen2AudioForConditionalGeneration) -> None:
        super().__init__(model.audio_tower)
        self.tower_before = copy.deepcopy(model.audio_tower).requires_grad_(False).eval()
        self.projector = model.multi_modal_projector.linear.requires_grad_(False)

    @property
    def heads(self) -> nn.ModuleList:
        return nn.ModuleList([self.letters, self.kinds, self.sex])

    @property
    def learning(self) -> nn.ModuleList:
        """The encoder and its heads."""
        return nn.ModuleList([self.tower, *self.heads])

    def first_loss(self, batches: tuple[EncoderBatch, EncoderBatch]) -> torch.Tensor:
        """Of the heads on the encoder as it is."""
        self.tower.requires_grad_(False)
        return torch.stack([self.heads_loss(batch)[0] for batch in batches]).mean()

    def hearing_loss(self, batches: tuple[EncoderBatch, EncoderBatch]) -> torch.Tensor:
        """Of the heads, and what holds the encoder, which learns now."""
        self.tower.requires_grad_(True)
        (old, states, _), (new, _, _) = (self.heads_loss(batch) for batch in batches)
        return OLD * old + (1 - OLD) * new + HOLD_WEIGHT * self.moved(batches[0], states)

    def moved(self, batch: EncoderBatch, states: list[torch.Tensor]) -> torch.Tensor:
        """How far the projector's output [N, H] for a batch is from what it was, as a share of its variance."""
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bfloat16()):
            tokens = torch.cat([self.tower._pool(clip[None])[0] for clip in states])
            now = self.projector(self.tower.layer_norm(tokens)).float()
            with torch.no_grad():
                then = self.projector(self.tower_before.encode(batch.features, batch.lengths)).float()
        return F.mse_loss(now, then) / then.var().clamp_min(1e-6)
