"""The encoder's first stage, in the role that Whisper's training has: letters by CTC, the kind of sound, the sex.

CTC sees speech only: sounds with empty targets keep it from starting to learn. A fourth head turns the encoder's output
into the states that the language model learns to read meanwhile (`tables.py`); it becomes part of the projector. The
other heads are thrown away.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from qwen2_audio.audio.mel import num_encoder_frames
from qwen2_audio.evaluate.nano.mix import Clip
from qwen2_audio.model.attention import ALL
from qwen2_audio.model.encoder import Qwen2AudioEncoder
from qwen2_audio.train.aligner import distance, greedy
from qwen2_audio.train.precision import fast_bfloat16

from .batches import CLASSES, LETTERS, NO_SEX, EncoderBatch, EncoderStream
from .clips import Library
from .loop import Stage
from .tables import Tables

ENCODER = Stage("encoder", steps=5000, batch=32, lr=2.5e-3, warmup=150, decay_from=0.55)
KIND_WEIGHT, SEX_WEIGHT, BRIDGE_WEIGHT = 0.3, 0.1, 0.5


class Listener(nn.Module):
    """The encoder with its three heads."""

    def __init__(self, tower: Qwen2AudioEncoder) -> None:
        super().__init__()
        self.tower = tower
        width = tower.config.d_model
        self.letters = nn.Linear(width, len(LETTERS) + 1)
        self.kinds = nn.Linear(width, len(CLASSES))
        self.sex = nn.Linear(width, 2)
        self.bridge = nn.Linear(width, width)
        self.tables = Tables.drawn(width)

    def states(self, batch: EncoderBatch) -> list[torch.Tensor]:
        """What the encoder averages by two, [E, d] of each clip."""
        tower = self.tower
        counts = [num_encoder_frames(n) for n in batch.lengths]
        clips = [tower._embed(clip[None], n) for clip, n in zip(batch.features, counts, strict=True)]
        x = torch.cat(clips, dim=1)
        for layer in tower.layers:
            x, _ = layer(x, ALL, counts)
        return list(x[0].split(counts))

    def frames(self, states: list[torch.Tensor]) -> list[torch.Tensor]:
        """The same, normalised as the encoder's output is."""
        return [self.tower.layer_norm(clip) for clip in states]

    def loss(self, batch: EncoderBatch) -> torch.Tensor:
        """Of the three heads and the bridge."""
        loss, states, frames = self.heads_loss(batch)
        return loss + BRIDGE_WEIGHT * self._bridge_loss(states, frames, batch.clips)

    def heads_loss(self, batch: EncoderBatch) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
        """Of letters, kinds and sexes; also the states and frames of each clip."""
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bfloat16()):
            states = self.states(batch)
            frames = self.frames(states)
            pooled = torch.stack([clip.mean(0) for clip in frames])
            kinds, sexes = self.kinds(pooled).float(), self.sex(pooled).float()
        loss = KIND_WEIGHT * F.cross_entropy(kinds, batch.kinds, label_smoothing=0.05)
        if bool((batch.sexes != NO_SEX).any()):
            loss = loss + SEX_WEIGHT * F.cross_entropy(sexes, batch.sexes, ignore_index=NO_SEX)
        if batch.spoken:
            loss = loss + self._letters_loss([frames[i] for i in batch.spoken], batch.letters)
        return loss, states, frames

    def _bridge_loss(self, states: list[torch.Tensor], frames: list[torch.Tensor], clips: list[Clip]) -> torch.Tensor:
        """Mean square between the bridge's states and those of CTC's own posteriors, with the clip's colour."""
        with torch.no_grad():
            wanted = []
            for found, clip in zip(frames, clips, strict=True):
                posteriors = self.letters(found.float())[: len(found) // 2 * 2].softmax(-1)
                pairs = posteriors.view(-1, 2, posteriors.shape[-1]).mean(1) @ torch.from_numpy(self.tables.letters)
                wanted.append(pairs + torch.from_numpy(self.tables.colour(clip)))
        made = [self.tower._pool(clip[None].float())[0] for clip in states]
        return F.mse_loss(self.bridge(torch.cat(made)), torch.cat(wanted))

    def _letters_loss(self, frames: list[torch.Tensor], letters: list[list[int]]) -> torch.Tensor:
        padded = nn.utils.rnn.pad_sequence([clip.float() for clip in frames])  # [T, B, d]
        log_probs = self.letters(padded).log_softmax(-1)
        return F.ctc_loss(
            log_probs,
            torch.tensor([letter for word in letters for letter in word]),
            torch.tensor([len(clip) for clip in frames]),
            torch.tensor([len(word) for word in letters]),
            zero_infinity=True,
        )


@torch.no_grad()
def judge(network: Listener, library: Library, count: int) -> dict[str, float]:
    """On the first `count` clips: letter errors of greedy CTC, kinds and sexes told right, each a share."""
    stream, sums = EncoderStream(library, 1, 0), {"letter_errors": 0, "letters": 0, "kind": 0, "sex": 0, "people": 0}
    network.eval()
    for batch in (stream.collated([i], None) for i in range(min(count, len(library)))):
        frames = network.frames(network.states(batch))[0]
        mean = frames.mean(0)
        sums["kind"] += int(batch.kinds[0, network.kinds(mean).argmax()] > 0)
        if int(batch.sexes[0]) != NO_SEX:
            sums["people"] += 1
            sums["sex"] += int(network.sex(mean).argmax() == batch.sexes[0])
        for letters in batch.letters:
            sums["letters"] += len(letters)
            sums["letter_errors"] += distance(letters, list(greedy(network.letters(frames))))
    network.train()
    return {
        "letter_error_rate": sums["letter_errors"] / max(1, sums["letters"]),
        "kind": sums["kind"] / min(count, len(library)),
        "sex": sums["sex"] / max(1, sums["people"]),
    }


@torch.no_grad()
def join(network: Listener, projector: nn.Linear) -> None:
    """Put the bridge before the projector: what the language model learned to read, it now gets from the encoder."""
    projector.bias.add_(projector.weight @ network.bridge.bias)
    projector.weight.copy_(projector.weight @ network.bridge.weight)
