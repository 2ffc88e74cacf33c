"""The process group of torchrun: ranks, collective operations, gradient sums, and FSDP.

All processes must call a collective operation, in the same order. The docstrings of those functions say "collective".
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
    """The process group, seen from this process."""

    rank: int = 0
    size: int = 1
    kind: str = "none"  # each process has: "ddp", the full model; "fsdp", a shard of every weight; "tensor", some heads
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which writes files and prints."""
        return self.rank == 0

    @property
    def sharded(self) -> bool:
        return self.kind == "fsdp"

    def total(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Collective: the sum of each number over all processes; the names must be the same in all of them."""
        if self.size == 1:
            return dict(numbers)
        values = torch.tensor([numbers[name] for name in sorted(numbers)], dtype=torch.float64, device=self.device)
        _dist().all_reduce(values)
        return dict(zip(sorted(numbers), values.tolist(), strict=True))

    def gather(self, value: Any) -> list[Any]:
        """Collective: the `value` of every process, by rank; any object that can be pickled."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        _dist().all_gather_object(values, value)
        return values

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """Collective: replace `tensor` by its sum over all processes, in place; the same bits in each process."""
        _dist().all_reduce(tensor)
        return tensor

    def all_gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Collective: the `tensor` of every process, by rank; all must have the same shape and dtype."""
        tensors = [torch.empty_like(tensor) for _ in range(self.size)]
        _dist().all_gather(tensors, tensor)
        return tensors

    def broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        """Collective: replace `tensor` by that of rank 0, in place; contiguous, of the same shape and dtype."""
        _dist().broadcast(tensor, 0)
        return tensor

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Collective, for "ddp": replace each gradient by its sum over all processes, or None if no process has one."""
        if self.size == 1 or self.sharded:  # FSDP has summed them in the backward pass
            return
        parameters = list(parameters)
        counts = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32, device=self.device)
        _dist().all_reduce(counts)
        for parameter, count in zip(parameters, counts.tolist(), strict=True):
            if count and parameter.grad is None:  # for example, of the encoder in a process whose batch had no clip
                parameter.grad = torch.zeros_like(parameter)
        for bucket in _buckets([p.grad for p in parameters if p.grad is not None]):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            _dist().all_reduce(flat)
            for gradient, summed in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                gradient.copy_(summed.view_as(gradient))


def join(kind: str, device: torch.device) -> Processes:
    """Collective: join the process group of torchrun, which its environment variables describe.

    `device` is the requested device; on CUDA each process uses a GPU of its own.
    Raises ConfigError if `kind` needs torchrun and the program was started without it, or the reverse.
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
    """Collective: `join` for a program that was started by torchrun."""
    size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", rank)))
        torch.cuda.set_device(device)
    if not _dist().is_initialized():
        backend, timeout = "nccl" if device.type == "cuda" else "gloo", None
        if kind == "tensor":  # an engine also sends CPU tensors, and may wait for days for the next request
            backend, timeout = backend.replace("nccl", "cpu:gloo,cuda:nccl"), timedelta(days=365)
        _dist().init_process_group(backend, timeout=timeout)
        atexit.register(_leave)
    return Processes(rank, size, kind, device)


def shard(model: nn.Module, blocks: Sequence[nn.Module], processes: Processes) -> None:
    """Collective: divide the weights of `model` among the processes with FSDP2.

    The weights of each of `blocks` are gathered while it computes; all other weights are gathered once per pass.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(processes.device.type, (processes.size,))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """A sharded tensor, gathered on the CPU (collective); any other tensor, detached, on its device."""
    tensor = tensor.detach()
    if _is_sharded(tensor):
        return cast(Any, tensor).full_tensor().cpu()  # type: ignore[no-any-return]
    return tensor


def shard_like(tensor: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """This process's shard of a full `tensor`, sharded like `parameter`; the full one if that is not sharded."""
    if not _is_sharded(parameter) or tensor.shape != parameter.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = parameter.device_mesh, parameter.placements  # type: ignore[attr-defined]
    return distribute_tensor(tensor.to(parameter.device), mesh, placements, src_data_rank=None)


@contextlib.contextmanager
def full_parameters(modules: Iterable[nn.Module], processes: Processes) -> Iterator[None]:
    """Collective: inside this context, the sharded parameters of `modules` are full tensors on the CPU in rank 0.

    For saving them, not for computing.
    """
    sharded = [
        (module, name, parameter)
        for module in modules
        for name, parameter in module.named_parameters(recurse=False)
        if _is_sharded(parameter)
    ]
    full: dict[int, nn.Parameter] = {}
    for parameter in {id(p): p for _, _, p in sharded}.values():
        gathered = full_tensor(parameter)
        if processes.first:  # the other processes only take part in the gather
            full[id(parameter)] = nn.Parameter(gathered, requires_grad=False)
    for module, name, parameter in sharded:
        module._parameters[name] = full.get(id(parameter), parameter)
    try:
        yield
    finally:
        for module, name, parameter in sharded:
            module._parameters[name] = parameter


def _is_sharded(tensor: torch.Tensor) -> bool:
    if type(tensor) in (torch.Tensor, nn.Parameter):  # avoids the import below in a single process
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor) or isinstance(tensor.data, DTensor)


def _buckets(gradients: list[torch.Tensor], values: int = 1 << 24) -> Iterator[list[torch.Tensor]]:
    """Group consecutive gradients of one dtype, up to `values` numbers: one message each would take longer."""
    bucket: list[torch.Tensor] = []
    for gradient in gradients:
        too_large = sum(g.numel() for g in bucket) + gradient.numel() > values
        if bucket and (too_large or gradient.dtype != bucket[0].dtype):
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
