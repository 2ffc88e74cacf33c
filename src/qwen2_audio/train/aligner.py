"""An aligner: a linear CTC head on the frozen encoder, for times of words (`longform.word_times`).

    clips and their texts -> states of some layers, once -> a head on each by CTC -> the best one, by held-out clips

Minutes of speech are enough, in any language and without times. Nothing of the checkpoint is changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F

from ..audio.mel import MEL_HOP, SAMPLE_RATE
from ..errors import ConfigError, TrainingError
from ..longform.windows import SHORTEST
from ..longform.word_times_head import SHIFT, AlignerHead, encoder_states, fingerprint
from ..longform.word_times_letters import SYMBOLS, WILDCARD, labels_of, spell
from ..model.encoder import Qwen2AudioEncoder

MIN_CLIPS = 8
_WARM_UP = 20  # steps
_WEIGHT_DECAY = 1e-3


@dataclass(frozen=True, eq=False)
class LabelledClip:
    """`samples` float32 [S] at 16 kHz, and what is said in them."""

    samples: np.ndarray
    text: str


@dataclass(frozen=True)
class AlignerConfig:
    """How an aligner is trained. Raises ConfigError for numbers that cannot work."""

    minutes: float = 10.0  # of speech, at most; the rest of the data is not read
    steps: int = 300
    batch: int = 16  # clips
    learning_rate: float = 1e-2
    held_out: int = 10  # every tenth clip judges, and is not trained on
    seed: int = 0
    shift: float = SHIFT  # s that CTC's peaks come late; only speech with known times can tell

    def __post_init__(self) -> None:
        for name in ("minutes", "steps", "batch", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected a number above 0.")
        if self.held_out < 2:
            raise ConfigError(f"held_out is {self.held_out}; expected 2 or more, for every second clip or fewer.")


@dataclass(frozen=True)
class LayerScore:
    """A layer's head on the held-out clips."""

    layer: int
    loss: float  # nats a letter
    letter_errors: float  # share, of the most likely letters; aligning needs far less than reading


@dataclass
class Trained:
    """A head, and how well it and those of other layers did."""

    head: AlignerHead
    scores: list[LayerScore]  # in the order of layers
    clips: int  # that were trained on
    held_out: int
    seconds: float  # of both
    left_out: Counter[str] = field(default_factory=Counter)  # clips by reason

    def __str__(self) -> str:
        lines = [f"{self.clips} clips trained, {self.held_out} held out, {self.seconds / 60:.1f} minutes in all"]
        lines += [f"{count} clips left out: {reason}" for reason, count in self.left_out.items()]
        for score in self.scores:
            chosen = "  <- chosen" if score.layer == self.head.layer else ""
            lines.append(
                f"layer {score.layer:2}: held-out loss {score.loss:.3f} a letter, "
                f"{100 * score.letter_errors:.1f} % of letters wrong{chosen}"
            )
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class _Item:
    states: torch.Tensor  # float16 [layers, E, d]
    labels: list[int]


def candidate_layers(count: int) -> tuple[int, ...]:
    """The layers of an encoder with `count` that are tried: the convolutions, every quarter, the last."""
    return tuple(sorted({round(count * share / 4) for share in range(5)}))


def train(
    encoder: Qwen2AudioEncoder,
    clips: Iterable[LabelledClip],
    config: AlignerConfig | None = None,
    progress: Callable[[float, float], None] = lambda seconds, total: None,
) -> Trained:
    """Train heads and keep the best.

    Args:
        clips: read until there are `config.minutes`; clips over 30 s, without letters, or with digits are left out.
        progress: called with the seconds of sound that went through the encoder, and how many there will be at most.

    Raises:
        TrainingError: fewer than 8 clips can be used.
    """
    config = config or AlignerConfig()
    layers = candidate_layers(len(encoder.layers))
    left_out = Counter[str]()
    items, seconds = list[_Item](), 0.0
    for clip in clips:
        item = _item(encoder, clip, layers, left_out)
        if item is not None:
            items.append(item)
            seconds += len(clip.samples) / SAMPLE_RATE
            progress(seconds, 60 * config.minutes)
        if seconds >= 60 * config.minutes:
            break
    if len(items) < MIN_CLIPS:
        reasons = "; ".join(f"{count} {reason}" for reason, count in left_out.items()) or "none was left out"
        raise TrainingError(f"{len(items)} clips can be used, and an aligner needs {MIN_CLIPS} at least ({reasons}).")
    judges = items[:: config.held_out]
    learners = [item for index, item in enumerate(items) if index % config.held_out]
    weight, bias = _fit(learners, config)
    scores = [_score(judges, weight[index], bias[index], index, layer) for index, layer in enumerate(layers)]
    best = min(range(len(layers)), key=lambda index: scores[index].loss)
    head = AlignerHead(
        weight[best].numpy(),
        bias[best].numpy(),
        layers[best],
        fingerprint(encoder, layers[best]),
        config.shift,
        about=f"{len(learners)} clips, held-out loss {scores[best].loss:.3f} a letter",
    )
    return Trained(head, scores, len(learners), len(judges), seconds, left_out)


def _item(
    encoder: Qwen2AudioEncoder, clip: LabelledClip, layers: Sequence[int], left_out: Counter[str]
) -> _Item | None:
    """A clip's states and labels; None, and its reason counted, where it cannot be used."""
    labels, _ = labels_of([spell(word) for word in clip.text.split()])
    if not labels:
        left_out["without letters"] += 1
    elif WILDCARD in labels:
        left_out["with digits or signs, which can be read aloud in several ways"] += 1
    elif len(clip.samples) > encoder.window * MEL_HOP:
        left_out["over 30 s, more than is heard at once"] += 1
    elif len(clip.samples) < SHORTEST or len(labels) > len(clip.samples) // (2 * 320):
        left_out["with more letters than anybody says in that time"] += 1
    else:
        states = encoder_states(encoder, clip.samples, layers)
        return _Item(torch.stack([states[layer] for layer in layers]).half().cpu(), labels)
    return None


def _fit(items: Sequence[_Item], config: AlignerConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights float32 [layers, C, d] and biases [layers, C] of all layers' heads, trained together."""
    layers, _, width = items[0].states.shape
    random = torch.Generator().manual_seed(config.seed)
    weight = (torch.randn(layers, len(SYMBOLS) + 1, width, generator=random) / width**0.5).requires_grad_()
    bias = torch.zeros(layers, len(SYMBOLS) + 1, requires_grad=True)
    optimizer = torch.optim.AdamW([weight, bias], lr=config.learning_rate, weight_decay=_WEIGHT_DECAY)
    warm_up = min(_WARM_UP, config.steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm_up, (config.steps - step) / max(1, config.steps - warm_up))
    )
    for batch in _batches(items, config, random):
        optimizer.zero_grad()
        _losses(batch, weight, bias, reduction="mean").backward()
        optimizer.step()
        schedule.step()
    return weight.detach(), bias.detach()


def _batches(items: Sequence[_Item], config: AlignerConfig, random: torch.Generator) -> Iterator[list[_Item]]:
    order: list[int] = []
    for _ in range(config.steps):
        while len(order) < min(config.batch, len(items)):
            order += torch.randperm(len(items), generator=random).tolist()
        yield [items[index] for index in order[: config.batch]]
        del order[: config.batch]


def _losses(batch: Sequence[_Item], weight: torch.Tensor, bias: torch.Tensor, reduction: str) -> torch.Tensor:
    """CTC's loss of every layer's head on every clip; "mean" is by letters, then over both."""
    layers = len(weight)
    states = torch.nn.utils.rnn.pad_sequence([item.states.transpose(0, 1).float() for item in batch])  # [T, B, l, d]
    logits = torch.einsum("tbld,lcd->tblc", states, weight) + bias
    lengths = torch.tensor([item.states.shape[1] for item in batch]).repeat_interleave(layers)
    labels = [torch.tensor(item.labels) for item in batch for _ in range(layers)]
    return F.ctc_loss(
        logits.flatten(1, 2).log_softmax(-1),
        torch.cat(labels),
        lengths,
        torch.tensor([len(label) for label in labels]),
        reduction=reduction,
        zero_infinity=True,
    )


@torch.no_grad()
def _score(items: Sequence[_Item], weight: torch.Tensor, bias: torch.Tensor, index: int, layer: int) -> LayerScore:
    loss, wrong, letters = 0.0, 0, 0
    for item in items:
        one = _Item(item.states[index : index + 1], item.labels)
        loss += float(_losses([one], weight[None], bias[None], reduction="sum"))
        wrong += distance(item.labels, list(greedy(one.states[0].float() @ weight.T + bias)))
        letters += len(item.labels)
    return LayerScore(layer, loss / letters, wrong / letters)


def greedy(logits: torch.Tensor) -> Iterator[int]:
    """The best path [E, classes] without repeats and blanks."""
    before = 0
    for best in logits.argmax(-1).tolist():
        if best and best != before:
            yield best
        before = best


def distance(one: Sequence[int], two: Sequence[int]) -> int:
    """Edits between two sequences."""
    row = list(range(len(two) + 1))
    for i, left in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, right in enumerate(two, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (left != right))
    return row[-1]
