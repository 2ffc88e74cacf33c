"""Train nano: first the encoder to tell kinds of sound apart, then the whole model on conversations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from qwen2_audio.config import num_audio_tokens
from qwen2_audio.model.encoder import Qwen2AudioEncoder
from qwen2_audio.model.qwen2_audio import Qwen2AudioForConditionalGeneration

from .batches import ConversationStream, EncoderBatch, EncoderStream
from .clips import Library, open_library
from .loop import Stage, adamw, read_losses, train
from .network import fresh_model, nano_config, save_checkpoint
from .sounds.kinds import NAMES
from .tokenizer import train_tokenizer

ENCODER = Stage("encoder", steps=1500, batch=16, lr=2e-3, decay_from=0.4)
JOINT = Stage("joint", steps=800, batch=16, lr=1e-3)
ENCODER_SHARE = 0.25  # of the joint rate: the encoder knows its trade by then
FROZEN_SHARE = 0.6  # of the joint steps in which the encoder only listens, which halves their cost


@dataclass(frozen=True)
class Plan:
    """What to train and where."""

    work: Path  # clips, checkpoints of the stages, logs
    out: Path  # the finished checkpoint, official layout
    clips: int = 6480  # for training, kinds in turn
    scale: float = 1.0  # of the number of steps
    threads: int = 1
    workers: int = 2  # processes that synthesise
    seed: int = 0


class Classifier(nn.Module):
    """The encoder with a head that names the kind; the head is thrown away afterwards."""

    def __init__(self, tower: Qwen2AudioEncoder) -> None:
        super().__init__()
        self.tower = tower
        self.head = nn.Linear(tower.config.d_model, len(NAMES))

    def forward(self, batch: EncoderBatch) -> torch.Tensor:
        """Logits [A, kinds]."""
        states = self.tower.encode(batch.features, batch.lengths)  # [sum of tokens, d]
        clips = states.split([num_audio_tokens(n) for n in batch.lengths])
        return self.head(torch.stack([clip.mean(0) for clip in clips]))


def train_nano(plan: Plan) -> None:
    """Everything from sounds to the saved checkpoint. What is already done under `plan.work` is not done again."""
    torch.set_num_threads(plan.threads)
    library = open_library("train", plan.clips, plan.work / "clips", plan.workers)
    tokenizer = train_tokenizer()
    config = nano_config(tokenizer)
    model = fresh_model(config, plan.seed).train()
    train_encoder(model, library, plan)
    train_joint(model, ConversationStream(library, tokenizer, JOINT.batch, plan.seed), plan)
    save_checkpoint(model, config, tokenizer, plan.out)
    plot_losses(plan.work)


def train_encoder(model: Qwen2AudioForConditionalGeneration, library: Library, plan: Plan) -> None:
    stage, stream = scaled(ENCODER, plan.scale), EncoderStream(library, ENCODER.batch, plan.seed)
    network = Classifier(model.audio_tower)

    def loss_of(step: int) -> torch.Tensor:
        batch = stream(step)
        return F.cross_entropy(network(batch), batch.kinds, label_smoothing=0.05)

    train(stage, network, adamw([(network, stage.lr)]), loss_of, plan.work)


def train_joint(model: Qwen2AudioForConditionalGeneration, stream: ConversationStream, plan: Plan) -> None:
    stage = scaled(JOINT, plan.scale)
    rest = nn.ModuleList([model.multi_modal_projector, model.language_model])
    optimizer = adamw([(model.audio_tower, stage.lr * ENCODER_SHARE), (rest, stage.lr)])

    def loss_of(step: int) -> torch.Tensor:
        set_frozen(model.audio_tower, step < FROZEN_SHARE * stage.steps)
        return model(**stream(step)).loss

    train(stage, model, optimizer, loss_of, plan.work)


def set_frozen(tower: Qwen2AudioEncoder, frozen: bool) -> None:
    """Stop or resume gradients in the encoder; its position table never has any."""
    tower.requires_grad_(not frozen)
    tower.embed_positions.requires_grad_(False)


def scaled(stage: Stage, scale: float) -> Stage:
    return replace(stage, steps=max(1, round(stage.steps * scale)))


@torch.no_grad()
def encoder_accuracy(network: Classifier, library: Library) -> float:
    """Share of a library's clips whose kind the auxiliary head names."""
    right = sum(int((network(batch).argmax(-1) == batch.kinds).sum()) for batch in _every_clip(library))
    return right / len(library)


def _every_clip(library: Library) -> Iterator[EncoderBatch]:
    for i, entry in enumerate(library.entries):
        kind = torch.tensor([NAMES.index(entry.clip.kind)])
        yield EncoderBatch(torch.from_numpy(library.mel(i))[None], [entry.frames], kind)


def plot_losses(work: Path) -> None:
    """`work/losses.png`: the loss of every step, smoothed over 20."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 3.5))
    for panel, stage in zip(panels, (ENCODER, JOINT), strict=True):
        losses = read_losses(work / f"{stage.name}.jsonl")
        smooth = [sum(losses[max(0, i - 19) : i + 1]) / min(20, i + 1) for i in range(len(losses))]
        panel.plot(losses, alpha=0.25)
        panel.plot(smooth)
        panel.set(title=stage.name, xlabel="step", ylabel="loss", yscale="log")
    figure.tight_layout()
    figure.savefig(work / "losses.png", dpi=90)
    plt.close(figure)
