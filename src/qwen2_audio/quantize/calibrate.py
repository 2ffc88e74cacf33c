"""What the model's inputs tell about its weights: errors of input channels that carry much count more.

Twice. The search for scales weighs each channel's error by its mean square. And, after Lin et al. 2023,
https://arxiv.org/abs/2306.00978, a channel's weights are multiplied by s before they are quantised and its activations
divided by s, which changes nothing but the rounding; s is the mean |activation| to a power between 0 and 1. The
division is folded into what makes the activations:

    q, k, v        input_layernorm's weight            gate, up   post_attention_layernorm's weight
    o              v's outputs                         down       up's outputs
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..errors import ConfigError
from .packing import Format
from .scheme import Scheme
from .search import rounded

EXPONENTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8)  # 0 is no scaling
LEAST_IMPORTANCE = 0.01  # of the mean: what no clip of the calibration excites may still be excited later
ROWS = 256  # positions kept of each group's input
LAYERS = "language_model.model.layers"


@dataclass(frozen=True)
class Group:
    """Linears that share an input, and the tensors whose division by s makes up for it."""

    linears: tuple[str, ...]
    norm: str = ""  # a norm's weight, or
    producer: str = ""  # a Linear whose outputs are the input, up to what does not mix channels
    repeats: int = 1  # times that an output of `producer` appears in the input, head by head
    head: int = 1  # outputs that are repeated together


@dataclass
class Calibration:
    """How the tensors of a plain checkpoint are to be changed, and how their errors count."""

    factors: dict[str, torch.Tensor] = field(default_factory=dict)  # tensor's name -> what broadcasts over it
    importance: dict[str, torch.Tensor] = field(default_factory=dict)  # weight's name -> float32 [K]

    def apply(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor as it is to be quantised."""
        factor = self.factors.get(name)
        return tensor if factor is None else tensor.float() * factor

    def multiply(self, name: str, factor: torch.Tensor) -> None:
        self.factors[name] = self.factors[name] * factor if name in self.factors else factor


class Seen:
    """What went into a group of Linears of `width` inputs: means of each input, and ROWS positions drawn from all."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.rows = torch.zeros(0, width)
        self._total, self._squares = torch.zeros(width), torch.zeros(width)
        self._lots = torch.zeros(0)  # a random number for each row kept: the highest stay
        self._draw = torch.Generator().manual_seed(0)

    @property
    def mean(self) -> torch.Tensor:
        """Mean |x| [K]."""
        return self._total / max(self.count, 1)

    @property
    def importance(self) -> torch.Tensor:
        """Mean square [K], and a little for all."""
        squares = self._squares / max(self.count, 1)
        return squares + LEAST_IMPORTANCE * squares.mean()

    def add(self, x: torch.Tensor) -> None:
        """x: float32 [positions, width]."""
        self.count += len(x)
        self._total += x.abs().sum(0)
        self._squares += x.square().sum(0)
        lots = torch.cat([self._lots, torch.rand(len(x), generator=self._draw)])
        self._lots, kept = lots.topk(min(ROWS, len(lots)))
        self.rows = torch.cat([self.rows, x])[kept]


def calibrate(model: nn.Module, batches: Iterable[Mapping[str, torch.Tensor]], scheme: Scheme) -> Calibration:
    """What keeps the outputs of the language model's Linears closest to what they are.

    Args:
        model: the plain model in float32, in eval mode.
        batches: inputs of its forward pass, without padded positions.
        scheme: that the model will be quantised to.

    Raises ConfigError: there are no batches.
    """
    groups = groups_of(model)
    with _watching(model, groups) as seen, torch.no_grad():
        for batch in batches:
            model(**batch, use_cache=False, logits_to_keep=1)
    if not any(one.count for one in seen):
        raise ConfigError("There is nothing to calibrate on; give at least one clip, or a file with conversations.")
    calibration = Calibration()
    with torch.no_grad():
        for group, one in zip(groups, seen, strict=True):
            s = find(model, group, one, scheme.modules[group.linears[0]])
            _add(calibration, group, s, model)
            for path in group.linears:
                calibration.importance[f"{path}.weight"] = one.importance / s.square()
    return calibration


def groups_of(model: nn.Module) -> list[Group]:
    """The groups of each layer of a Qwen2 language model."""
    config: Any = model.config
    config = config.text_config
    groups = []
    for number in range(config.num_hidden_layers):
        layer = f"{LAYERS}.{number}"
        attention, mlp = f"{layer}.self_attn", f"{layer}.mlp"
        repeats = config.num_attention_heads // config.num_key_value_heads
        groups += [
            Group(tuple(f"{attention}.{name}_proj" for name in "qkv"), norm=f"{layer}.input_layernorm.weight"),
            Group((f"{attention}.o_proj",), producer=f"{attention}.v_proj", repeats=repeats, head=config.head_dim),
            Group((f"{mlp}.gate_proj", f"{mlp}.up_proj"), norm=f"{layer}.post_attention_layernorm.weight"),
            Group((f"{mlp}.down_proj",), producer=f"{mlp}.up_proj"),
        ]
    return groups


@contextmanager
def _watching(model: nn.Module, groups: list[Group]) -> Iterator[list[Seen]]:
    firsts: list[Any] = [model.get_submodule(group.linears[0]) for group in groups]
    seen = [Seen(linear.in_features) for linear in firsts]

    def hook(one: Seen) -> Any:
        def watch(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            one.add(inputs[0].detach().float().flatten(0, -2).cpu())

        return watch

    handles = [linear.register_forward_pre_hook(hook(one)) for linear, one in zip(firsts, seen, strict=True)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def find(model: nn.Module, group: Group, seen: Seen, form: Format) -> torch.Tensor:
    """The best s for a group, float32 [K]: least squared error of the outputs, over EXPONENTS."""
    weights: list[Any] = [model.get_submodule(path).weight for path in group.linears]
    best, least = torch.ones(seen.rows.shape[1]), float("inf")
    for exponent in EXPONENTS:
        s = strength(_shared(seen.mean, group), exponent)
        importance = seen.importance / s.square()
        changes = [rounded(weight * s, form, importance) / s - weight for weight in weights]
        error = sum(float((seen.rows @ change.T).square().sum()) for change in changes)
        if error < least:
            best, least = s, error
    return best


def strength(mean: torch.Tensor, exponent: float) -> torch.Tensor:
    """mean |x| [K] to a power, its extremes made reciprocal, so that weights keep their size on the whole."""
    s = mean.clamp_min(float(mean.max()) * 1e-4).clamp_min(1e-12) ** exponent
    return s / (s.max() * s.min()).sqrt()


def _shared(mean: torch.Tensor, group: Group) -> torch.Tensor:
    """One number for all the channels that one output of the producer feeds."""
    if group.repeats == 1:
        return mean
    heads = mean.view(-1, group.repeats, group.head)
    return heads.mean(1, keepdim=True).expand_as(heads).reshape(-1)


def _add(calibration: Calibration, group: Group, s: torch.Tensor, model: nn.Module) -> None:
    for path in group.linears:
        calibration.multiply(f"{path}.weight", s)
    if group.norm:
        calibration.multiply(group.norm, 1 / s)
        return
    made = s.view(-1, group.repeats, group.head)[:, 0].reshape(-1)
    calibration.multiply(f"{group.producer}.weight", 1 / made[:, None])
    if model.get_submodule(group.producer).bias is not None:
        calibration.multiply(f"{group.producer}.bias", 1 / made)
