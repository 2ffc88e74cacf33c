"""Calibration: run the model on clips, and reduce the rounding errors of channels with large activations.

It has two parts. The search for scales weights each input channel's error by the mean square of the channel. And, after
AWQ (Lin et al. 2023, https://arxiv.org/abs/2306.00978), a channel's weights are multiplied by s before they are
quantised and its activations are divided by s, which changes nothing but the rounding; s is the mean |activation| to a
power between 0 and 1. The division is folded into the layer that computes the activations:

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
LEAST_IMPORTANCE = 0.01  # of the mean importance; a channel without activations in the clips may get some later
ROWS = 256  # positions of each group's input that are kept for comparing outputs
LAYERS = "language_model.model.layers"


@dataclass(frozen=True)
class Group:
    """Linears that share an input, and the tensor that is divided by s to compensate: `norm` or `producer`."""

    linears: tuple[str, ...]
    norm: str = ""  # the weight of a norm that computes the input
    producer: str = ""  # a Linear that computes the input, followed only by operations that do not mix channels
    repeats: int = 1  # times that each output of `producer` occurs in the input, because of grouped-query attention
    head: int = 1  # outputs per head, which are repeated together


@dataclass
class Calibration:
    """Factors for the tensors of a plain checkpoint, and the importance of each input channel's error."""

    factors: dict[str, torch.Tensor] = field(default_factory=dict)  # tensor's name -> factor that broadcasts over it
    importance: dict[str, torch.Tensor] = field(default_factory=dict)  # weight's name -> float32 [K]

    def apply(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor times its factor: the tensor to quantise."""
        factor = self.factors.get(name)
        return tensor if factor is None else tensor.float() * factor

    def multiply(self, name: str, factor: torch.Tensor) -> None:
        """Multiply the factor of tensor `name` by `factor`."""
        self.factors[name] = self.factors[name] * factor if name in self.factors else factor


class InputStatistics:
    """Statistics of the inputs of a group of Linears: means per channel, and a random sample of ROWS positions."""

    def __init__(self, width: int) -> None:
        """`width`: input channels."""
        self.count = 0  # positions
        self.rows = torch.zeros(0, width)
        self._total, self._squares = torch.zeros(width), torch.zeros(width)
        self._priorities = torch.zeros(0)  # a random number per row; the rows with the highest are kept
        self._generator = torch.Generator().manual_seed(0)

    @property
    def mean(self) -> torch.Tensor:
        """Mean |x| [K]."""
        return self._total / max(self.count, 1)

    @property
    def importance(self) -> torch.Tensor:
        """The mean square of each channel [K], plus LEAST_IMPORTANCE of their mean."""
        squares = self._squares / max(self.count, 1)
        return squares + LEAST_IMPORTANCE * squares.mean()

    def add(self, x: torch.Tensor) -> None:
        """Add the positions x, float32 [positions, width]."""
        self.count += len(x)
        self._total += x.abs().sum(0)
        self._squares += x.square().sum(0)
        priorities = torch.cat([self._priorities, torch.rand(len(x), generator=self._generator)])
        self._priorities, sample = priorities.topk(min(ROWS, len(priorities)))
        self.rows = torch.cat([self.rows, x])[sample]


def calibrate(model: nn.Module, batches: Iterable[Mapping[str, torch.Tensor]], scheme: Scheme) -> Calibration:
    """Run `model` on `batches` and choose the factors with the least error of the language model's Linears.

    Args:
        model: the plain model in float32, in eval mode.
        batches: inputs of its forward pass, without padded positions.
        scheme: the scheme that the model will be quantised to.

    Raises:
        ConfigError: there are no batches.
    """
    groups = groups_of(model)
    with _record_inputs(model, groups) as statistics, torch.no_grad():
        for batch in batches:
            model(**batch, use_cache=False, logits_to_keep=1)
    if not any(inputs.count for inputs in statistics):
        raise ConfigError("There is nothing to calibrate on; give at least one clip, or a file with conversations.")
    calibration = Calibration()
    with torch.no_grad():
        for group, inputs in zip(groups, statistics, strict=True):
            s = best_factors(model, group, inputs, scheme.modules[group.linears[0]])
            _add(calibration, group, s, model)
            for path in group.linears:
                calibration.importance[f"{path}.weight"] = inputs.importance / s.square()
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
def _record_inputs(model: nn.Module, groups: list[Group]) -> Iterator[list[InputStatistics]]:
    """Collect the statistics of each group's input while the model runs."""
    linears: list[Any] = [model.get_submodule(group.linears[0]) for group in groups]
    statistics = [InputStatistics(linear.in_features) for linear in linears]

    def hook(target: InputStatistics) -> Any:
        def record(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            target.add(inputs[0].detach().float().flatten(0, -2).cpu())

        return record

    handles = [
        linear.register_forward_pre_hook(hook(target)) for linear, target in zip(linears, statistics, strict=True)
    ]
    try:
        yield statistics
    finally:
        for handle in handles:
            handle.remove()


def best_factors(model: nn.Module, group: Group, inputs: InputStatistics, form: Format) -> torch.Tensor:
    """The factors s for a group, float32 [K]: those of EXPONENTS with the least squared error of the outputs."""
    weights: list[Any] = [model.get_submodule(path).weight for path in group.linears]
    best, least = torch.ones(inputs.rows.shape[1]), float("inf")
    for exponent in EXPONENTS:
        s = scaling_factors(_mean_per_output(inputs.mean, group), exponent)
        importance = inputs.importance / s.square()
        changes = [rounded(weight * s, form, importance) / s - weight for weight in weights]
        error = sum(float((inputs.rows @ change.T).square().sum()) for change in changes)
        if error < least:
            best, least = s, error
    return best


def scaling_factors(mean: torch.Tensor, exponent: float) -> torch.Tensor:
    """mean |x| [K] to the power `exponent`, normalised so that the least and the greatest factor are reciprocal."""
    s = mean.clamp_min(float(mean.max()) * 1e-4).clamp_min(1e-12) ** exponent
    return s / (s.max() * s.min()).sqrt()


def _mean_per_output(mean: torch.Tensor, group: Group) -> torch.Tensor:
    """`mean` [K], averaged over the channels that are the same output of the producer."""
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
    per_output = s.view(-1, group.repeats, group.head)[:, 0].reshape(-1)
    calibration.multiply(f"{group.producer}.weight", 1 / per_output[:, None])
    if model.get_submodule(group.producer).bias is not None:
        calibration.multiply(f"{group.producer}.bias", 1 / per_output)
