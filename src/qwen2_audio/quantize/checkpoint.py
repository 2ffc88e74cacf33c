"""Load a quantised model, from a quantised checkpoint or by quantising a plain one, and save it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from ..checkpoint import weights
from ..checkpoint.memory import require_memory
from ..checkpoint.weights import Checkpoint
from ..errors import WeightsError
from . import files
from .calibrate import Calibration
from .linear import QuantizedLayer
from .scheme import EMBEDDING, Scheme
from .search import SLICE, Loss, quantize_linear, quantize_rows

WORKSPACE = 64 * SLICE * 4  # bytes that the search and the allocator need in addition to the result


@dataclass(frozen=True)
class Source:
    """A checkpoint, or the tensors of it whose names begin with `prefix`, without the tensors `ignore`."""

    checkpoint: Checkpoint
    prefix: str = ""
    ignore: tuple[str, ...] = ()


@dataclass(frozen=True)
class QuantizedTensors:
    """The tensors of a quantised model that were made from one tensor of a plain checkpoint."""

    tensors: dict[str, torch.Tensor]  # by the quantised model's names
    loss: Loss = field(default_factory=Loss)
    module: str = ""  # the path of the quantised layer; "" if the tensor was not quantised


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """All tensors of a quantised model by name: its parameters, and the buffers of its quantised layers."""
    return {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}


def nbytes(model: nn.Module) -> int:
    """Bytes of a quantised model's tensors, which may be on the meta device."""
    return sum(tensor.nbytes for tensor in tensors_of(model).values())


def load_quantized(model: nn.Module, source: Source, scheme: Scheme, device: torch.device) -> None:
    """Load a checkpoint that was saved in `scheme` into a plain model on the meta device.

    On the CPU the tensors stay mapped from the file: the system reads them on first use, and processes share them.
    Raises WeightsError when tensors are missing, unexpected, or of another shape or dtype; the message names them.
    """
    scheme.install(model, source.prefix)
    expected, checkpoint = tensors_of(model), source.checkpoint
    ignore = [name for name in checkpoint.stored if _is_ignored(name, source.ignore)]
    weights.check_tensors(checkpoint, expected, prefix=source.prefix, ignore=ignore, exact=True)
    for name, tensor in weights.with_progress(expected, lambda name: checkpoint.read(source.prefix + name)):
        tensor = tensor.to(device)
        if tensor.data_ptr() % files.ALIGNMENT:  # the kernels need aligned tensors
            tensor = tensor.clone()
        assign(model, name, tensor)


def quantize_while_loading(model: nn.Module, source: Source, scheme: Scheme, device: torch.device) -> None:
    """Quantise a plain checkpoint into a plain model on the meta device; memory holds the result and one more tensor.

    Raises:
        WeightsError: as `weights.load_checkpoint`; or a weight is not finite.
        CapacityError: the available memory is too small for the result.
    """
    quantized = quantize_tensors(model, source, scheme)
    if device.type == "cpu":
        require_memory(nbytes(model) + WORKSPACE, f"The model in {scheme.name}")
    for item in quantized:
        for name, tensor in item.tensors.items():
            assign(model, name, tensor.to(device))


def quantize_tensors(
    model: nn.Module,
    source: Source,
    scheme: Scheme,
    calibration: Calibration | None = None,
    title: str = "Quantising weights",
) -> Iterator[QuantizedTensors]:
    """Put `scheme`'s empty layers into a plain model on the meta device, and return an iterator over their tensors.

    Iterating reads and quantises one tensor of the checkpoint at a time, with a progress bar called `title`.
    Raises WeightsError, before the first tensor, as `weights.check_tensors`.
    """
    plain: dict[str, torch.Tensor] = dict(model.named_parameters())
    parameters = dict(model.named_parameters(remove_duplicate=False))
    stored_names = {id(parameter): name for name, parameter in plain.items()}  # a tied head is read as the embedding
    weights.check_tensors(source.checkpoint, plain, prefix=source.prefix, optional=parameters, ignore=source.ignore)
    scheme.install(model, source.prefix)

    def read(name: str) -> QuantizedTensors:
        tensor = source.checkpoint.read(source.prefix + stored_names[id(parameters[name])])
        return _quantize(name, tensor, model, source.prefix, calibration)

    return (quantized for _, quantized in weights.with_progress(parameters, read, title))


def _quantize(
    name: str, tensor: torch.Tensor, model: nn.Module, prefix: str, calibration: Calibration | None
) -> QuantizedTensors:
    path, _, leaf = name.rpartition(".")
    layer = model.get_submodule(path)
    calibration = calibration or Calibration()
    tensor = calibration.apply(name, tensor)
    if leaf != "weight" or not isinstance(layer, QuantizedLayer):
        return QuantizedTensors({name: tensor.float().contiguous()})
    if prefix + path == EMBEDDING:
        stored = quantize_rows(tensor, layer.form, name)
    else:
        stored = quantize_linear(tensor, layer.form, name, calibration.importance.get(name))
    tensors = {f"{path}.weight_codes": stored.codes}
    if stored.scales is not None:
        tensors[f"{path}.weight_scales"] = stored.scales
    return QuantizedTensors(tensors, stored.loss, path)


def assign(model: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Replace the model's parameter or buffer `name` by `tensor`."""
    path, _, leaf = name.rpartition(".")
    owner = model.get_submodule(path)
    if leaf in owner._buffers:
        owner._buffers[leaf] = tensor
    else:
        old = owner.get_parameter(leaf)
        setattr(owner, leaf, nn.Parameter(tensor, requires_grad=old.requires_grad))


def save_quantized(model: nn.Module, blank: nn.Module, folder: Path, max_shard_bytes: int) -> None:
    """Write a quantised model's tensors to `folder`, which may hold other files, as `qwen2-audio quantize` does.

    `blank` is the quantised model that its config describes, on the meta device. Raises WeightsError if they differ.
    """
    expected, actual = tensors_of(blank), tensors_of(model)
    for name in sorted({*expected, *actual}):
        ours, theirs = actual.get(name), expected.get(name)
        if ours is None or theirs is None or (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
            raise WeightsError(
                f"This quantised model is not as its config builds it (look at {name}); save it as it was loaded, "
                "without an adapter and in float32."
            )
    folder.mkdir(parents=True, exist_ok=True)
    with files.tensor_writer(folder, expected, max_shard_bytes) as write:
        for name, tensor in actual.items():
            write(name, tensor)


def _is_ignored(name: str, ignore: tuple[str, ...]) -> bool:
    """Whether `name` is a tensor of `ignore`, or the codes or scales of one."""
    return any(name.startswith(plain + suffix) for plain in ignore for suffix in ("", "_codes", "_scales"))


def is_quantized(model: nn.Module) -> bool:
    return any(isinstance(module, QuantizedLayer) for module in model.modules())
