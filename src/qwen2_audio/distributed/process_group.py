"""The processes that torchrun starts, as one: who this is, sums over all, a model divided among them.

Every function that says "all processes" must be called by all of them, in the same order.
"""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

import torch
from torch import nn

from ..errors import ConfigError

KINDS = ("none", "ddp", "fsdp")


@dataclass(frozen=True)
class Processes:
    """This process among those of the run."""

    rank: int = 0
    size: int = 1
    kind: str = "none"  # "ddp": each has the whole model; "fsdp": its share of every weight; "tensor": of the heads
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and talks."""
        return self.rank == 0

    @property
    def sharded(self) -> bool:
        return self.kind == "fsdp"

    def total(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """The sum of each number over all processes; the names must be the same everywhere."""
        if self.size == 1:
            return dict(numbers)
        values = torch.tensor([numbers[name] for name in sorted(numbers)], dtype=torch.float64, device=self.device)
        _dist().all_reduce(values)
        return dict(zip(sorted(numbers), values.tolist(), strict=True))

    def gather(self, value: Any) -> list[Any]:
        """The `value` of each of all processes, by rank; anything that can be pickled."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        _dist().all_gather_object(found, value)
        return found

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """`tensor`, which becomes its sum over all processes: the same bits in each."""
        _dist().all_reduce(tensor)
        return tensor

    def all_gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """The `tensor` of each of all processes, by rank; of one shape and dtype everywhere."""
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        _dist().all_gather(found, tensor)
        return found

    def broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        """`tensor`, which becomes what it is in the first of all processes; contiguous, of one shape and dtype."""
        _dist().broadcast(tensor, 0)
        return tensor

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """With "ddp": each gradient becomes its sum over all processes; one that none of them has stays None."""
        if self.size == 1 or self.sharded:  # FSDP has summed them in the backward pass
            return
        wanted = list(parameters)
        there = torch.tensor([p.grad is not None for p in wanted], dtype=torch.int32, device=self.device)
        _dist().all_reduce(there)
        for parameter, known in zip(wanted, there.tolist(), strict=True):
            if known and parameter.grad is None:  # say, of the encoder, in a process that had no clip this time
                parameter.grad = torch.zeros_like(parameter)
        for bucket in _buckets([p.grad for p in wanted if p.grad is not None]):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            _dist().all_reduce(flat)
            for gradient, summed in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                gradient.copy_(summed.view_as(gradient))


def join(kind: str, device: torch.device) -> Processes:
    """This process's place among those that torchrun started, from its environment; all processes.

    `device`: the one that was asked for; on CUDA each process takes its own.
    Raises ConfigError: `kind` and the way the program was started do not fit together.
    """
    size = int(os.environ.get("WORLD_SIZE", 1))
    if kind == "none":
        if size > 1:
            raise ConfigError(
                f"{size} processes were started, and parallel is 'none', so that each would do the same; set parallel "
                "to 'ddp', or to 'fsdp' for a model that one device cannot hold."
            )
        return Processes(device=device)
    if "RANK" not in os.environ:
        raise ConfigError(
            f"parallel is {kind!r}, which needs several processes; start them with "
            "'torchrun --nproc-per-node 2 -m qwen2_audio train ...', or set parallel to 'none'."
        )
    return init_process_group(kind, device)


def init_process_group(kind: str, device: torch.device) -> Processes:
    """`join` for a program that torchrun is known to have started."""
    size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", rank)))
        torch.cuda.set_device(device)
    if not _dist().is_initialized():
        backend, patience = "nccl" if device.type == "cuda" else "gloo", None
        if kind == "tensor":  # an engine's messages are CPU tensors, and the next request may be days away
            backend, patience = backend.replace("nccl", "cpu:gloo,cuda:nccl"), timedelta(days=365)
        _dist().init_process_group(backend, timeout=patience)
        atexit.register(_leave)
    return Processes(rank, size, kind, device)


def shard(model: nn.Module, blocks: Sequence[nn.Module], processes: Processes) -> None:
    """FSDP2: divide the weights of `model` among all processes.

    The weights of one of `blocks` are gathered while it computes; what lies outside of them is gathered once a pass.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(processes.device.type, (processes.size,))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor, gathered if it is divided (all processes), on the CPU where it was."""
    tensor = tensor.detach()
    if _is_divided(tensor):
        return cast(Any, tensor).full_tensor().cpu()  # type: ignore[no-any-return]
    return tensor


def shard_like(tensor: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """This process's share of a whole `tensor`, divided as `parameter` is; the tensor itself if that is whole."""
    if not _is_divided(parameter) or tensor.shape != parameter.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = parameter.device_mesh, parameter.placements  # type: ignore[attr-defined]
    return distribute_tensor(tensor.to(parameter.device), mesh, placements, src_data_rank=None)


@contextlib.contextmanager
def full_parameters(modules: Iterable[nn.Module], processes: Processes) -> Iterator[None]:
    """All processes: in the first one the parameters of `modules` are whole meanwhile, on the CPU where they were
    divided. For saving, not for computing.
    """
    divided = [
        (module, name, parameter)
        for module in modules
        for name, parameter in module.named_parameters(recurse=False)
        if _is_divided(parameter)
    ]
    entire: dict[int, nn.Parameter] = {}
    for parameter in {id(p): p for _, _, p in divided}.values():
        together = full_tensor(parameter)
        if processes.first:  # the others only have their part in it
            entire[id(parameter)] = nn.Parameter(together, requires_grad=False)
    for module, name, parameter in divided:
        module._parameters[name] = entire.get(id(parameter), parameter)
    try:
        yield
    finally:
        for module, name, parameter in divided:
            module._parameters[name] = parameter


def _is_divided(tensor: torch.Tensor) -> bool:
    if type(tensor) in (torch.Tensor, nn.Parameter):  # so that one process alone imports nothing more
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor) or isinstance(tensor.data, DTensor)


def _buckets(gradients: list[torch.Tensor], values: int = 1 << 24) -> Iterator[list[torch.Tensor]]:
    """Neighbours of one dtype, together: a message each would take longer."""
    bucket: list[torch.Tensor] = []
    for gradient in gradients:
        full = sum(g.numel() for g in bucket) + gradient.numel() > values
        if bucket and (full or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket


def _leave() -> None:
    if _dist().is_initialized():
        _dist().destroy_process_group()


def _dist() -> Any:
    import torch.distributed

    return torch.distributed
