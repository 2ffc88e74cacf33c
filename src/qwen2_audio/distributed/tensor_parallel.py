"""Tensor parallelism: divide the language model among the processes of torchrun, for models too large for one device.

    q, k, v, gate, up   by outputs: each process has some of the heads, and a part of the MLP's width
    o, down             by inputs: each process has a term of the sum, which all_reduce adds up
    lm_head             by vocabulary: each process has the logits of some tokens, which all_gather concatenates

The inputs and outputs of a layer are complete in every process, and the logits are the same bits in all of them:
all processes run the same program and generate the same answer. Norms, encoder and projector are not divided. The
embedding is not divided either, because that would cost a message per pass and save no computation. Shoeybi et al.
2019, https://arxiv.org/abs/1909.08053.
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
    """The processes that share one model, and rank 0's state of them."""

    processes: Processes
    lock: Lock = field(default_factory=Lock)  # held by the thread of rank 0 that sends commands to the others
    engines: int = 0  # engines started so far, in rank 0
    closed: str = ""  # why the other processes take no more commands; "" while they do


class RowParallelLinear(nn.Linear):
    """A Linear without bias of which this process has some inputs: x [..., its inputs] -> the output, all-reduced."""

    def __init__(self, weight: torch.Tensor, group: TensorParallelGroup) -> None:
        _init_from_weight(self, weight)
        self.group = group

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.group.processes.all_reduce(F.linear(x, self.weight))


class ParallelLMHead(nn.Linear):
    """A head of which this process has some tokens: x [..., H] -> the logits of all tokens, all-gathered. No bias."""

    def __init__(self, weight: torch.Tensor, vocabulary: int, group: TensorParallelGroup) -> None:
        _init_from_weight(self, weight)
        self.vocabulary, self.group = vocabulary, group

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shard = F.linear(x, self.weight)
        if not x.numel():  # no sequence needs logits in this pass
            return shard.new_empty((*x.shape[:-1], self.vocabulary))
        processes = self.group.processes
        missing = -(-self.vocabulary // processes.size) - shard.shape[-1]  # the last shards may be smaller
        shard = F.pad(shard, (0, missing)) if missing else shard
        return torch.cat(processes.all_gather(shard), dim=-1)[..., : self.vocabulary]


@dataclass(frozen=True)
class WeightShards:
    """The part of each weight that this process has."""

    group: TensorParallelGroup
    axes: Mapping[str, int]  # the divided dimension of each divided parameter

    @classmethod
    def for_model(cls, model: Qwen2AudioModel, processes: Processes) -> WeightShards:
        """For a plain, undivided `model`, which may be without storage.

        Raises ConfigError if its sizes are not divisible by the number of processes.
        """
        _check_sizes(model.config.text_config, processes.size)
        axes = {}
        for name, _ in model.language_model.named_parameters(prefix="language_model"):
            module = name.split(".")[-2]
            if module in (*BY_OUTPUTS, *BY_INPUTS, HEAD):
                axes[name] = 1 if module in BY_INPUTS else 0
        return cls(TensorParallelGroup(processes), axes)

    def shard(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """This process's shard of parameter `name`, as a copy that does not keep `tensor` alive; or all of it."""
        return self._narrow(tensor, self.axes[name]).contiguous().clone() if name in self.axes else tensor

    def install(self, model: Qwen2AudioModel) -> None:
        """Replace the layers of `model`, whose weights are shards already, by parallel ones. For inference only."""
        text, size = model.language_model, self.group.processes.size
        for module in list(text.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.Linear) and name in BY_OUTPUTS:
                    child.out_features = len(child.weight)
                elif isinstance(child, nn.Linear) and name in BY_INPUTS:
                    setattr(module, name, RowParallelLinear(child.weight, self.group))
        if text.lm_head is not None:
            weight: torch.Tensor = text.lm_head.weight
            if weight is text.model.embed_tokens.weight:  # tied: the embedding stays complete, the head is a view of it
                weight = self._narrow(weight.detach(), 0)
            text.lm_head = ParallelLMHead(weight, text.config.vocab_size, self.group)
        heads, groups = text.config.num_attention_heads // size, text.config.num_key_value_heads // size
        text.cached = replace(text.config, num_attention_heads=heads, num_key_value_heads=groups)
        model.requires_grad_(False)

    def _narrow(self, tensor: torch.Tensor, axis: int) -> torch.Tensor:
        rank, length = self.group.processes.rank, tensor.shape[axis]
        step = -(-length // self.group.processes.size)
        return tensor.narrow(axis, min(rank * step, length), max(0, min(step, length - rank * step)))


def join_tensor_parallel(device: torch.device) -> Processes:
    """Collective: join the processes of torchrun for tensor parallelism, and give all of them rank 0's random state.

    Raises ConfigError if the program was started without torchrun.
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
    """The processes that `model` is divided among; None for a model that is not divided."""
    return next((module.group for module in model.modules() if isinstance(module, RowParallelLinear)), None)


def _init_from_weight(linear: nn.Linear, weight: torch.Tensor) -> None:
    with without_weights():
        nn.Linear.__init__(linear, weight.shape[1], weight.shape[0], bias=False)
    linear.weight = nn.Parameter(weight.detach(), requires_grad=False)


def _check_sizes(text: Qwen2Config, size: int) -> None:
    sizes = {name: getattr(text, name) for name in ("num_attention_heads", "num_key_value_heads", "intermediate_size")}
    indivisible = [f"{name} {value}" for name, value in sizes.items() if value % size]
    if indivisible:
        largest = max(n for n in range(1, size) if not any(value % n for value in sizes.values()))
        raise ConfigError(
            f"{size} processes cannot share the language model evenly: {' and '.join(indivisible)} cannot be divided "
            f"by {size}; start {largest}."
        )
