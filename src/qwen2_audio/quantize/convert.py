"""A plain checkpoint to a quantised one on disk, tensor by tensor, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..checkpoint import hub, weights
from ..checkpoint.config import CONFIG_FILE, Qwen2AudioConfig
from ..checkpoint.json_file import write_json
from ..checkpoint.memory import require_disk, require_memory
from ..errors import ConfigError
from ..inputs.feature_extractor import FEATURE_FILES
from ..model.initialize import without_weights
from ..model.qwen2_audio import Qwen2AudioForConditionalGeneration
from ..text.tokenizer_files import TOKENIZER_FILES
from . import files
from .calibrate import Calibration
from .checkpoint import WORKSPACE, Piece, Source, nbytes, quantized_pieces, tensors_of
from .linear import QuantizedEmbedding, Stored
from .scheme import HEAD, KEY, Scheme
from .scheme import untied as untied_config
from .search import Loss

FILES_ALONG = (*TOKENIZER_FILES, *FEATURE_FILES, "generation_config.json")
PATTERNS = (*weights.PATTERNS, *FILES_ALONG)


@dataclass
class Part:
    """What a part of the model became."""

    name: str
    stored_as: str
    parameters: int = 0
    bytes: int = 0
    loss: Loss = field(default_factory=Loss)


@dataclass(frozen=True)
class Job:
    """A checkpoint, and how it is to be quantised. `group`: of the language model's Linears; None is the default."""

    source: str | Path
    target: Path
    scheme: str
    group: int | None = None


def convert(job: Job, calibration: Calibration | None = None, about: dict[str, Any] | None = None) -> list[Part]:
    """Write the quantised checkpoint; returns its parts. What is checked is checked before anything is written.

    Args:
        calibration: what hearing some clips told about the weights.
        about: more keys for the quantization_config, such as what was calibrated on.

    Raises:
        ConfigError: the target is not empty, the source is quantised already, no such scheme or group.
        WeightsError: the source is absent, incomplete or damaged.
        CapacityError: the disk or the memory has no room; the message says for how much.
    """
    check_target(job.target)
    folder = hub.resolve(job.source, PATTERNS)
    config = Qwen2AudioConfig.from_pretrained(folder)
    refuse_quantized(folder, config)
    checkpoint = weights.Checkpoint.open(folder)
    weights.untie(config, checkpoint)
    with without_weights():
        model = Qwen2AudioForConditionalGeneration(config)
    scheme = Scheme.for_model(model, job.scheme, job.group)
    pieces = quantized_pieces(model, Source(checkpoint), scheme, calibration)
    _check_room(model, scheme, job.target, changed=calibration is not None)
    setattr(config, KEY, scheme.to_config() | (about or {}))
    with _appearing(job.target) as unfinished:
        parts = _write(model, pieces, unfinished)
        data = untied_config(config).to_checkpoint_dict(type(model).__name__, "float32")
        write_json(unfinished / CONFIG_FILE, data)
        for name in FILES_ALONG:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, unfinished / name)
    return parts


def check_target(target: Path) -> None:
    """Raise ConfigError for a folder that holds something."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} is not empty; name a new folder, so that nothing is overwritten.")


def refuse_quantized(folder: Path, config: Qwen2AudioConfig) -> None:
    """Raise ConfigError for a checkpoint in one of our schemes, WeightsError for one that another tool quantised."""
    stored = getattr(config, KEY, None)
    if stored:
        name = Scheme.from_config(stored, folder).name
        raise ConfigError(f"{folder} is quantised to {name} already; take the checkpoint that it was made from.")


def _check_room(model: nn.Module, scheme: Scheme, target: Path, *, changed: bool) -> None:
    layers = [module for module in model.modules() if isinstance(module, Stored)]
    largest = max(sum(buffer.nbytes for buffer in layer.buffers()) for layer in layers)
    if changed:
        largest += max(_numel(layer) for layer in layers) * torch.float32.itemsize
    require_memory(largest + WORKSPACE, f"Quantising to {scheme.name}, one tensor at a time,")
    parent = next(folder for folder in target.absolute().parents if folder.is_dir())
    require_disk(nbytes(model), parent, f"The checkpoint in {scheme.name}")


@contextlib.contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """A folder beside `target` that becomes it in one step, or goes away."""
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        unfinished.mkdir()
        yield unfinished
        if target.is_dir():
            target.rmdir()  # it is empty
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write(model: nn.Module, pieces: Iterator[Piece], folder: Path) -> list[Part]:
    parts: dict[tuple[str, str], Part] = {}
    with files.writing(folder, tensors_of(model), weights.MAX_SHARD_BYTES) as write:
        for piece in pieces:
            for name, tensor in piece.tensors.items():
                write(name, tensor)
            key = _part_of(model, piece)
            part = parts.setdefault(key, Part(*key))
            part.bytes += sum(tensor.nbytes for tensor in piece.tensors.values())
            layer = model.get_submodule(piece.module) if piece.module else None
            numbers = sum(tensor.numel() for tensor in piece.tensors.values())
            part.parameters += _numel(layer) if isinstance(layer, Stored) else numbers
            part.loss += piece.loss
    return list(parts.values())


def _part_of(model: nn.Module, piece: Piece) -> tuple[str, str]:
    """The part of the model that a piece belongs to, and how it is stored."""
    if not piece.module:
        return "biases, norms, convolutions, positions", "float32"
    layer = model.get_submodule(piece.module)
    assert isinstance(layer, Stored)
    if isinstance(layer, QuantizedEmbedding):
        name = "embedding"
    elif piece.module == HEAD:
        name = "head"
    else:
        name = {"audio_tower": "encoder", "multi_modal_projector": "projector"}.get(
            piece.module.partition(".")[0], "language model"
        )
    return name, Stored.extra_repr(layer)


def _numel(layer: Stored) -> int:
    """Weights of a layer, padding not counted."""
    if isinstance(layer, QuantizedEmbedding):
        return layer.num_embeddings * layer.embedding_dim
    return int(layer.in_features) * int(layer.out_features)  # type: ignore[arg-type]
