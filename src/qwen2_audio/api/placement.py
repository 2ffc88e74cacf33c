"""Where a checkpoint runs on this machine, and in which dtype: sizes from its config, room from the system."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..checkpoint.config import Qwen2AudioConfig
from ..checkpoint.memory import amount, available_bytes, size
from ..errors import CapacityError
from ..model.initialize import without_weights
from ..model.qwen2_audio import Qwen2AudioForConditionalGeneration
from ..native import fused
from ..pretrained import check_quantized_dtype, parse_device, parse_dtype, stored_scheme
from ..quantize.checkpoint import nbytes
from ..quantize.scheme import SCHEMES, Scheme, check_name

FEWEST_POSITIONS = 1024  # of context that a quantised model must have room for: 30 s of sound, a question, an answer


@dataclass(frozen=True)
class Sizes:
    """How large a checkpoint is, whatever its dtype."""

    encoder: int  # parameters
    projector: int
    language_model: int  # head included
    context: int  # positions
    kv_values: int  # numbers that the KV cache holds for a position

    @property
    def parameters(self) -> int:
        return self.encoder + self.projector + self.language_model

    def bytes(self, dtype: torch.dtype) -> int:
        """The weights and the KV cache of one whole context."""
        return (self.parameters + self.kv_values * self.context) * dtype.itemsize


def sizes_of(config: Qwen2AudioConfig) -> Sizes:
    """Count the parameters of the model that `config` describes, without making it."""
    with without_weights():
        model = Qwen2AudioForConditionalGeneration(config)
    text = config.text_config
    parts = (model.audio_tower, model.multi_modal_projector, model.language_model)
    encoder, projector, language_model = (sum(p.numel() for p in part.parameters()) for part in parts)
    return Sizes(
        encoder,
        projector,
        language_model,
        text.max_position_embeddings,
        2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim,
    )


def quantized_model(config: Qwen2AudioConfig, scheme: str | Scheme) -> Qwen2AudioForConditionalGeneration:
    """The model that `config` describes in `scheme`, without storage: its tensors tell what it takes."""
    with without_weights():
        model = Qwen2AudioForConditionalGeneration(config)
    (Scheme.for_model(model, scheme) if isinstance(scheme, str) else scheme).install(model)
    return model


@dataclass(frozen=True)
class Placement:
    """A device, a dtype to compute in, a scheme to quantise to (or None), and one sentence on why."""

    device: torch.device
    dtype: torch.dtype
    reason: str
    quantize: str | None = None


def place(
    config: Qwen2AudioConfig,
    device: Any = "auto",
    dtype: Any = "auto",
    quantize: str | None = None,
    where: str | Path = "The checkpoint",
) -> Placement:
    """Choose what is "auto", for the checkpoint `where` with this config.

    Raises ConfigError for what is not there or contradicts itself, WeightsError for a quantised checkpoint that cannot
    be read here, CapacityError where nothing fits.
    """
    if quantize is not None:
        check_name(quantize)
    on = parse_device(device, "device")
    asked = parse_dtype(dtype)
    check_quantized_dtype(quantize, asked)
    stored = stored_scheme(where, config, quantize, asked)
    if stored is not None or quantize is not None:
        return _quantized(config, on, stored, quantize, weigh=asked is None and on.type == "cpu")
    if asked is not None:
        return Placement(on, asked, f"{_name(asked)} on {on}, as asked.")
    if on.type == "cuda":
        return _on_gpu(on)
    return _on_cpu(on, config, available_bytes())


def _quantized(
    config: Qwen2AudioConfig, device: torch.device, stored: Scheme | None, quantize: str | None, *, weigh: bool
) -> Placement:
    scheme = stored or quantize
    assert scheme is not None
    name = scheme if isinstance(scheme, str) else scheme.name
    takes, position = nbytes(quantized_model(config, scheme)), _position_bytes(config, device)
    room = available_bytes() if weigh else None
    if room is not None and takes + FEWEST_POSITIONS * position > room:
        raise CapacityError(
            f"The model has no room here: in {name} it takes {size(takes)} and {FEWEST_POSITIONS} positions of context "
            f"{size(FEWEST_POSITIONS * position)}, and {size(room)} are available. Free memory, use a larger machine, "
            "or pass dtype='float32' to try nevertheless."
        )
    why = "as asked" if stored is None else "as the checkpoint is stored"
    context = f"{size(takes)} of weights, and {size(position)} for every position of context"
    return Placement(device, torch.float32, f"{name} on {device}, {why}: {context}.", name)


def stored_dtype(config: Qwen2AudioConfig) -> torch.dtype:
    """The dtype of the checkpoint's files, as its config names it."""
    said = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None)
    return parse_dtype(said) or torch.float32


def _on_gpu(device: torch.device) -> Placement:
    name = torch.cuda.get_device_name(device)
    if torch.cuda.get_device_capability(device) >= (8, 0):
        return Placement(device, torch.bfloat16, f"bfloat16 on {device} ({name}): its native 16-bit format.")
    return Placement(device, torch.float16, f"float16 on {device} ({name}): it has no fast bfloat16.")


def _on_cpu(device: torch.device, config: Qwen2AudioConfig, room: int | None) -> Placement:
    sizes = sizes_of(config)
    full = sizes.bytes(torch.float32)
    need = f"{amount(sizes.parameters)} parameters and a full context of {sizes.context} positions take {size(full)}"
    if room is None or full <= room:
        free = "; how much memory is free could not be found out" if room is None else f" of {size(room)} available"
        return Placement(device, torch.float32, f"float32 on the CPU, exact: {need}{free}.")
    position, tried = _position_bytes(config, device), []
    for scheme in reversed(SCHEMES):
        takes = nbytes(quantized_model(config, scheme))
        left = min(sizes.context, (room - takes) // position)
        if left >= min(sizes.context, FEWEST_POSITIONS):
            reason = (
                f"{scheme} on the CPU, quantised while loading: {need} in float32, too much; in {scheme} the weights "
                f"take {size(takes)}, and {left} positions of context fit beside them in {size(room)} available."
            )
            return Placement(device, torch.float32, reason, scheme)
        tried.append(f"{size(takes)} in {scheme}")
    raise CapacityError(
        f"The model has no room here: {need} in float32, the weights alone {' and '.join(tried)}, and {size(room)} are "
        "available. Free memory, use a larger machine, or pass dtype='bfloat16' to try nevertheless."
    )


def _position_bytes(config: Qwen2AudioConfig, device: torch.device) -> int:
    """Bytes that the KV cache of one position takes beside quantised weights: float16 where native kernels read it."""
    native = device.type == "cpu" and fused.kernels() is not None
    return sizes_of(config).kv_values * (torch.float16 if native else torch.float32).itemsize


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
