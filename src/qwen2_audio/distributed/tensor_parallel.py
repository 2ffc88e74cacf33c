"""The language model divided among the processes of torchrun, so that one too large for a device runs on several.

    q, k, v, gate, up   by outputs: each process has some of the heads, and a part of the MLP's width
    o, down             by inputs: each process has a part of the sum, and all parts are added up
    lm_head             by vocabulary: each process has the logits of some tokens, and all are laid side by side

What enters and leaves a layer is whole in every process, and the logits are the same bits in all of them: all run one
program and come to one answer. Norms, encoder and projector are whole everywhere. So is the embedding: it is only
looked up in, and dividing it would cost a message a pass. Shoeybi et al. 2019, https://arxiv.org/abs/1909.08053.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..checkpoint.config import Qwen2Config
from ..errors import ConfigError
from ..model.initialize import without_weights
from ..model.qwen2_audio import Qwen2AudioModel
from .process_group import Processes, init_process_group

BY_OUTPUTS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
BY_INPUTS = ("o_proj", "down_proj")
HEAD = "lm_head"


@dataclass(eq=False)
class TensorParallelGroup:
    """The processes that one model is divided among, and what the first of them knows of the others."""

    processes: Processes
    lock: Lock = field(default_factory=Lock)  # for who makes all of them compute something
    engines: int = 0  # begun so far, in the first process
    closed: str = ""  # why the others will not compute anything any more


class RowParallelLinear(nn.Linear):
    """Some of a Linear's inputs: x [..., its inputs] -> the whole output, summed over all processes. No bias."""

    def __init__(self, weight: torch.Tensor, group: TensorParallelGroup) -> None:
        _adopt(self, weight)
        self.group = group

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.group.processes.all_reduce(F.linear(x, self.weight))


class ParallelLMHead(nn.Linear):
    """The head of some tokens: x [..., H] -> the logits of all `vocabulary` tokens, from all processes. No bias."""

    def __init__(self, weight: torch.Tensor, vocabulary: int, group: TensorParallelGroup) -> None:
        _adopt(self, weight)
        self.vocabulary, self.group = vocabulary, group

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        own = F.linear(x, self.weight)
        if not x.numel():  # nobody's prompt is at its end in this pass
            return own.new_empty((*x.shape[:-1], self.vocabulary))
        processes = self.group.processes
        missing = -(-self.vocabulary // processes.size) - own.shape[-1]  # the last shares may be shorter
        own = F.pad(own, (0, missing)) if missing else own
        return torch.cat(processes.all_gather(own), dim=-1)[..., : self.vocabulary]


@dataclass(frozen=True)
class WeightShards:
    """Which part of each weight this process has."""

    group: TensorParallelGroup
    axes: Mapping[str, int]  # of the parameters that are divided: the dimension

    @classmethod
    def of(cls, model: Qwen2AudioModel, processes: Processes) -> WeightShards:
        """For a plain `model`, whole or without storage. Raises ConfigError: it cannot be divided by so many."""
        _check_sizes(model.config.text_config, processes.size)
        axes = {}
        for name, _ in model.language_model.named_parameters(prefix="language_model"):
            module = name.split(".")[-2]
            if module in (*BY_OUTPUTS, *BY_INPUTS, HEAD):
                axes[name] = 1 if module in BY_INPUTS else 0
        return cls(TensorParallelGroup(processes), axes)

    def cut(self, name: str, whole: torch.Tensor) -> torch.Tensor:
        """This process's share of parameter `name`, a copy that does not hold the whole; or all of it."""
        return self._part(whole, self.axes[name]).contiguous().clone() if name in self.axes else whole

    def install(self, model: Qwen2AudioModel) -> None:
        """Make `model`, whose divided weights are `cut` already, compute with the others. For inference only."""
        text, size = model.language_model, self.group.processes.size
        for module in list(text.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.Linear) and name in BY_OUTPUTS:
                    child.out_features = len(child.weight)
                elif isinstance(child, nn.Linear) and name in BY_INPUTS:
                    setattr(module, name, RowParallelLinear(child.weight, self.group))
        if text.lm_head is not None:
            weight: torch.Tensor = text.lm_head.weight
            if weight is text.model.embed_tokens.weight:  # tied: whole for looking up, a view of it for computing
                weight = self._part(weight.detach(), 0)
            text.lm_head = ParallelLMHead(weight, text.config.vocab_size, self.group)
        heads, groups = text.config.num_attention_heads // size, text.config.num_key_value_heads // size
        text.cached = replace(text.config, num_attention_heads=heads, num_key_value_heads=groups)
        model.requires_grad_(False)

    def _part(self, whole: torch.Tensor, axis: int) -> torch.Tensor:
        rank, length = self.group.processes.rank, whole.shape[axis]
        each = -(-length // self.group.processes.size)
        return whole.narrow(axis, min(rank * each, length), max(0, min(each, length - rank * each)))


def join_tensor_parallel(device: torch.device) -> Processes:
    """This process's place among those of torchrun, all of which go on with one random state: the first one's.

    Raises ConfigError: the program was started alone.
    """
    if "RANK" not in os.environ:
        raise ConfigError(
            "tensor_parallel divides the language model among processes, and this program was started as one; start it "
            "with 'torchrun --nproc-per-node 2 ...', or leave tensor_parallel out."
        )
    processes = init_process_group("tensor", device)
    torch.set_rng_state(processes.broadcast(torch.get_rng_state()))
    if device.type == "cuda":
        torch.cuda.set_rng_state(processes.broadcast(torch.cuda.get_rng_state(processes.device)), processes.device)
    return processes


def tensor_parallel_group(model: Any) -> TensorParallelGroup | None:
    """The processes that `model` is divided among; None for one that is whole."""
    return next((module.group for module in model.modules() if isinstance(module, RowParallelLinear)), None)


def _adopt(linear: nn.Linear, weight: torch.Tensor) -> None:
    with without_weights():
        nn.Linear.__init__(linear, weight.shape[1], weight.shape[0], bias=False)
    linear.weight = nn.Parameter(weight.detach(), requires_grad=False)


def _check_sizes(text: Qwen2Config, size: int) -> None:
    sizes = {name: getattr(text, name) for name in ("num_attention_heads", "num_key_value_heads", "intermediate_size")}
    odd = [f"{name} {value}" for name, value in sizes.items() if value % size]
    if odd:
        fitting = max(n for n in range(1, size) if not any(value % n for value in sizes.values()))
        raise ConfigError(
            f"{size} processes cannot share the language model evenly: {' and '.join(odd)} cannot be divided by "
            f"{size}; start {fitting}."
        )
