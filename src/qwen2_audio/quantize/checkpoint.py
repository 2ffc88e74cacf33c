"""Weights into a quantised model: from a quantised checkpoint as they lie, from a plain one quantised on the way."""

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
from .linear import Stored
from .scheme import EMBEDDING, Scheme
from .search import SLICE, Loss, quantize_linear, quantize_rows

WORKSPACE = 64 * SLICE * 4  # bytes that the search and the allocator need beside the result


@dataclass(frozen=True)
class Source:
    """A checkpoint, or the part of it whose tensors begin with `prefix`, without those called `ignore`."""

    checkpoint: Checkpoint
    prefix: str = ""
    ignore: tuple[str, ...] = ()


@dataclass(frozen=True)
class Piece:
    """What one tensor of a plain checkpoint became."""

    tensors: dict[str, torch.Tensor]  # by the quantised model's names
    loss: Loss = field(default_factory=Loss)
    module: str = ""  # whose weight it is, if it was quantised


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """All tensors of a quantised model by name: its parameters, and the buffers of its quantised layers."""
    return {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}


def nbytes(model: nn.Module) -> int:
    """Bytes of a quantised model's tensors, which may be on the meta device."""
    return sum(tensor.nbytes for tensor in tensors_of(model).values())


def load_quantized(model: nn.Module, source: Source, scheme: Scheme, device: torch.device) -> None:
    """Fill a plain model on the meta device from a checkpoint that was saved in `scheme`.

    On the CPU the tensors stay mapped from the file: nothing is read until it is used, and several processes share it.
    Raises WeightsError: tensors missing, left over, of another shape or dtype; the message names them.
    """
    scheme.install(model, source.prefix)
    expected, checkpoint = tensors_of(model), source.checkpoint
    ignore = [name for name in checkpoint.stored if _is_ignored(name, source.ignore)]
    weights.check_tensors(checkpoint, expected, prefix=source.prefix, ignore=ignore, exact=True)
    for name, tensor in weights.with_progress(expected, lambda name: checkpoint.read(source.prefix + name)):
        tensor = tensor.to(device)
        if tensor.data_ptr() % files.ALIGNMENT:  # kernels read whole lines
            tensor = tensor.clone()
        assign(model, name, tensor)


def quantize_while_loading(model: nn.Module, source: Source, scheme: Scheme, device: torch.device) -> None:
    """Fill a plain model on the meta device from a plain checkpoint; memory holds the result and one tensor more.

    Raises:
        WeightsError: as `weights.load_checkpoint`; or a weight is not finite.
        CapacityError: the result has no room in the memory that is available.
    """
    pieces = quantized_pieces(model, source, scheme)
    if device.type == "cpu":
        require_memory(nbytes(model) + WORKSPACE, f"The model in {scheme.name}")
    for piece in pieces:
        for name, tensor in piece.tensors.items():
            assign(model, name, tensor.to(device))


def quantized_pieces(
    model: nn.Module,
    source: Source,
    scheme: Scheme,
    calibration: Calibration | None = None,
    what: str = "Quantising weights",
) -> Iterator[Piece]:
    """Put `scheme`'s empty layers into a plain model on the meta device; then, tensor by tensor, what goes into it.

    Raises WeightsError before the first tensor.
    """
    plain: dict[str, torch.Tensor] = dict(model.named_parameters())
    everything = dict(model.named_parameters(remove_duplicate=False))
    first = {id(parameter): name for name, parameter in plain.items()}  # a tied head is read as the embedding
    weights.check_tensors(source.checkpoint, plain, prefix=source.prefix, optional=everything, ignore=source.ignore)
    scheme.install(model, source.prefix)

    def read(name: str) -> Piece:
        stored = source.checkpoint.read(source.prefix + first[id(everything[name])])
        return _piece(name, stored, model, source.prefix, calibration)

    return (piece for _, piece in weights.with_progress(everything, read, what))


def _piece(name: str, tensor: torch.Tensor, model: nn.Module, prefix: str, calibration: Calibration | None) -> Piece:
    path, _, leaf = name.rpartition(".")
    layer = model.get_submodule(path)
    calibration = calibration or Calibration()
    tensor = calibration.apply(name, tensor)
    if leaf != "weight" or not isinstance(layer, Stored):
        return Piece({name: tensor.float().contiguous()})
    if prefix + path == EMBEDDING:
        stored = quantize_rows(tensor, layer.form, name)
    else:
        stored = quantize_linear(tensor, layer.form, name, calibration.importance.get(name))
    tensors = {f"{path}.weight_codes": stored.codes}
    if stored.scales is not None:
        tensors[f"{path}.weight_scales"] = stored.scales
    return Piece(tensors, stored.loss, path)


def assign(model: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Put `tensor` where the model has a parameter or buffer `name`."""
    path, _, leaf = name.rpartition(".")
    owner = model.get_submodule(path)
    if leaf in owner._buffers:
        owner._buffers[leaf] = tensor
    else:
        old = owner.get_parameter(leaf)
        setattr(owner, leaf, nn.Parameter(tensor, requires_grad=old.requires_grad))


def save_quantized(model: nn.Module, blank: nn.Module, folder: Path, max_shard_bytes: int) -> None:
    """Write a quantised model's tensors to `folder`, next to what is there, as `qwen2-audio quantize` writes them.

    `blank` is the quantised model that its config describes, on the meta device. Raises WeightsError if they differ.
    """
    expected, held = tensors_of(blank), tensors_of(model)
    for name in sorted({*expected, *held}):
        mine, wanted = held.get(name), expected.get(name)
        if mine is None or wanted is None or (mine.shape, mine.dtype) != (wanted.shape, wanted.dtype):
            raise WeightsError(
                f"This quantised model is not as its config builds it (look at {name}); save it as it was loaded, "
                "without an adapter and in float32."
            )
    folder.mkdir(parents=True, exist_ok=True)
    with files.writing(folder, expected, max_shard_bytes) as write:
        for name, tensor in held.items():
            write(name, tensor)


def _is_ignored(name: str, ignore: tuple[str, ...]) -> bool:
    """Whether `name` belongs to a tensor of `ignore`, itself or as it is quantised."""
    return any(name.startswith(plain + suffix) for plain in ignore for suffix in ("", "_codes", "_scales"))


def is_quantized(model: nn.Module) -> bool:
    return any(isinstance(module, Stored) for module in model.modules())
