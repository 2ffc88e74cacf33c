"""Convert a plain checkpoint to a quantised one on disk, one tensor at a time; the folder appears when complete."""

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
from .checkpoint import WORKSPACE, QuantizedTensors, Source, nbytes, quantize_tensors, tensors_of
from .linear import QuantizedEmbedding, QuantizedLayer
from .scheme import HEAD, KEY, Scheme
from .scheme import untied as untied_config
from .search import Loss

TRANSCRIPTION_FILES = ("transcription.json", "aligner.safetensors")  # an aligner tells itself whether it still fits
FILES_ALONG = (*TOKENIZER_FILES, *FEATURE_FILES, "generation_config.json", *TRANSCRIPTION_FILES)
PATTERNS = (*weights.PATTERNS, *FILES_ALONG)


@dataclass
class Part:
    """The size and the error of a part of the quantised model."""

    name: str  # "encoder", "head", ...
    stored_as: str  # "int4, groups of 64", ...
    parameters: int = 0
    bytes: int = 0
    loss: Loss = field(default_factory=Loss)


@dataclass(frozen=True)
class Job:
    """A checkpoint to quantise, and how."""

    source: str | Path
    target: Path
    scheme: str
    group: int | None = None  # the group size of the language model's Linears; None: the scheme's default


def convert(job: Job, calibration: Calibration | None = None, about: dict[str, Any] | None = None) -> list[Part]:
    """Write the quantised checkpoint; returns its parts. All checks are made before anything is written.

    Args:
        calibration: factors and importance from `calibrate`; None: quantise without calibration.
        about: additional keys of the quantization_config, such as the source of the calibration.

    Raises:
        ConfigError: the target is not empty, the source is already quantised, or an unknown scheme or group.
        WeightsError: the source is missing, incomplete or damaged.
        CapacityError: disk or memory are too small; the message says how much is needed.
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
    quantized = quantize_tensors(model, Source(checkpoint), scheme, calibration)
    _check_memory_and_disk(model, scheme, job.target, calibrated=calibration is not None)
    setattr(config, KEY, scheme.to_config() | (about or {}))
    with _atomic_folder(job.target) as unfinished:
        parts = _write(model, quantized, unfinished)
        data = untied_config(config).to_checkpoint_dict(type(model).__name__, "float32")
        write_json(unfinished / CONFIG_FILE, data)
        for path in (path for pattern in FILES_ALONG for path in folder.glob(pattern)):
            copy = unfinished / path.relative_to(folder)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, copy)
    return parts


def check_target(target: Path) -> None:
    """Raise ConfigError for a folder that is not empty."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} is not empty; name a new folder, so that nothing is overwritten.")


def refuse_quantized(folder: Path, config: Qwen2AudioConfig) -> None:
    """Raise ConfigError for a checkpoint in one of our schemes, WeightsError for one quantised by another tool."""
    stored = getattr(config, KEY, None)
    if stored:
        name = Scheme.from_config(stored, folder).name
        raise ConfigError(f"{folder} is quantised to {name} already; take the checkpoint that it was made from.")


def _check_memory_and_disk(model: nn.Module, scheme: Scheme, target: Path, *, calibrated: bool) -> None:
    layers = [module for module in model.modules() if isinstance(module, QuantizedLayer)]
    largest = max(sum(buffer.nbytes for buffer in layer.buffers()) for layer in layers)
    if calibrated:  # a weight times its factors is a float32 copy
        largest += max(_numel(layer) for layer in layers) * torch.float32.itemsize
    require_memory(largest + WORKSPACE, f"Quantising to {scheme.name}, one tensor at a time,")
    parent = next(folder for folder in target.absolute().parents if folder.is_dir())
    require_disk(nbytes(model), parent, f"The checkpoint in {scheme.name}")


@contextlib.contextmanager
def _atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `target`; rename it to `target` on success, delete it on failure."""
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        unfinished.mkdir()
        yield unfinished
        if target.is_dir():
            target.rmdir()  # `check_target` made sure that it is empty
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write(model: nn.Module, quantized: Iterator[QuantizedTensors], folder: Path) -> list[Part]:
    parts: dict[tuple[str, str], Part] = {}
    with files.tensor_writer(folder, tensors_of(model), weights.MAX_SHARD_BYTES) as write:
        for item in quantized:
            for name, tensor in item.tensors.items():
                write(name, tensor)
            key = _part_of(model, item.module)
            part = parts.setdefault(key, Part(*key))
            part.bytes += sum(tensor.nbytes for tensor in item.tensors.values())
            layer = model.get_submodule(item.module) if item.module else None
            numbers = sum(tensor.numel() for tensor in item.tensors.values())
            part.parameters += _numel(layer) if isinstance(layer, QuantizedLayer) else numbers
            part.loss += item.loss
    return list(parts.values())


def _part_of(model: nn.Module, module: str) -> tuple[str, str]:
    """The part of the model that `module` belongs to, and its format; `module` is "" for tensors not quantised."""
    if not module:
        return "biases, norms, convolutions, positions", "float32"
    layer = model.get_submodule(module)
    assert isinstance(layer, QuantizedLayer)
    if isinstance(layer, QuantizedEmbedding):
        name = "embedding"
    elif module == HEAD:
        name = "head"
    else:
        name = {"audio_tower": "encoder", "multi_modal_projector": "projector"}.get(
            module.partition(".")[0], "language model"
        )
    return name, QuantizedLayer.extra_repr(layer)


def _numel(layer: QuantizedLayer) -> int:
    """Weights of a layer, without padding."""
    if isinstance(layer, QuantizedEmbedding):
        return layer.num_embeddings * layer.embedding_dim
    return int(layer.in_features) * int(layer.out_features)  # type: ignore[arg-type]
