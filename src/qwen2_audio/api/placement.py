"""Choose the device and the dtype for a checkpoint, from its size and this machine's available memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..checkpoint.config import Qwen2AudioConfig
from ..checkpoint.memory import available_bytes, format_bytes, format_count
from ..errors import CapacityError
from ..model.initialize import without_weights
from ..model.qwen2_audio import Qwen2AudioForConditionalGeneration
from ..native import fused
from ..pretrained.options import check_quantized_dtype, parse_device, parse_dtype, stored_scheme
from ..quantize.checkpoint import nbytes
from ..quantize.scheme import SCHEMES, Scheme, check_name

FEWEST_POSITIONS = 1024  # context that must fit beside quantised weights: a clip of 30 s, a question, an answer


@dataclass(frozen=True)
class Sizes:
    """The size of a model, independent of its dtype."""

    encoder: int  # parameters
    projector: int  # parameters
    language_model: int  # parameters, with the head
    context: int  # positions
    kv_values: int  # numbers in the KV cache per position

    @property
    def parameters(self) -> int:
        return self.encoder + self.projector + self.language_model

    def bytes(self, dtype: torch.dtype) -> int:
        """Bytes of the weights and of the KV cache of one full context, both in `dtype`."""
        return (self.parameters + self.kv_values * self.context) * dtype.itemsize


def sizes_of(config: Qwen2AudioConfig) -> Sizes:
    """Count the parameters of the model that `config` describes, without allocating them."""
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
    """The model that `config` describes, quantised to `scheme`, without storage: for computing its size."""
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


def choose_placement(
    config: Qwen2AudioConfig,
    device: Any = "auto",
    dtype: Any = "auto",
    quantize: str | None = None,
    where: str | Path = "The checkpoint",
) -> Placement:
    """Choose the options that are "auto" for the checkpoint at `where` with this config.

    Raises:
        ConfigError: a device that is not there, an unknown scheme, or options that contradict each other.
        WeightsError: a quantised checkpoint that this version cannot read.
        CapacityError: the model fits in no dtype or scheme.
    """
    if quantize is not None:
        check_name(quantize)
    chosen_device = parse_device(device, "device")
    requested_dtype = parse_dtype(dtype)
    check_quantized_dtype(quantize, requested_dtype)
    stored = stored_scheme(where, config, quantize, requested_dtype)
    if stored is not None or quantize is not None:
        check_memory = requested_dtype is None and chosen_device.type == "cpu"
        return _quantized(config, chosen_device, stored, quantize, check_memory=check_memory)
    if requested_dtype is not None:
        reason = f"{_name(requested_dtype)} on {chosen_device}, as asked."
        return Placement(chosen_device, requested_dtype, reason)
    if chosen_device.type == "cuda":
        return _on_gpu(chosen_device)
    return _on_cpu(chosen_device, config, available_bytes())


def _quantized(
    config: Qwen2AudioConfig, device: torch.device, stored: Scheme | None, quantize: str | None, *, check_memory: bool
) -> Placement:
    scheme = stored or quantize
    assert scheme is not None
    name = scheme if isinstance(scheme, str) else scheme.name
    weights, position = nbytes(quantized_model(config, scheme)), _position_bytes(config, device)
    available = available_bytes() if check_memory else None
    if available is not None and weights + FEWEST_POSITIONS * position > available:
        raise CapacityError(
            f"The model does not fit in memory: in {name} it takes {format_bytes(weights)} and {FEWEST_POSITIONS} "
            f"positions of context {format_bytes(FEWEST_POSITIONS * position)}, and {format_bytes(available)} are "
            "available. Free memory, use a larger machine, or pass dtype='float32' to try nevertheless."
        )
    source = "as asked" if stored is None else "as the checkpoint is stored"
    memory = f"{format_bytes(weights)} of weights, and {format_bytes(position)} for every position of context"
    return Placement(device, torch.float32, f"{name} on {device}, {source}: {memory}.", name)


def stored_dtype(config: Qwen2AudioConfig) -> torch.dtype:
    """The dtype of the checkpoint's files, as its config names it."""
    name = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None)
    return parse_dtype(name) or torch.float32


def _on_gpu(device: torch.device) -> Placement:
    name = torch.cuda.get_device_name(device)
    if torch.cuda.get_device_capability(device) >= (8, 0):
        return Placement(device, torch.bfloat16, f"bfloat16 on {device} ({name}): its native 16-bit format.")
    return Placement(device, torch.float16, f"float16 on {device} ({name}): it has no fast bfloat16.")


def _on_cpu(device: torch.device, config: Qwen2AudioConfig, available: int | None) -> Placement:
    """float32 if it fits in `available` bytes (None: unknown), else int8, else int4."""
    sizes = sizes_of(config)
    float32_bytes = sizes.bytes(torch.float32)
    need = (
        f"{format_count(sizes.parameters)} parameters and a full context of {sizes.context} positions take "
        f"{format_bytes(float32_bytes)}"
    )
    if available is None:
        unknown = "how much memory is free could not be found out"
        return Placement(device, torch.float32, f"float32 on the CPU, exact: {need}; {unknown}.")
    if float32_bytes <= available:
        reason = f"float32 on the CPU, exact: {need} of {format_bytes(available)} available."
        return Placement(device, torch.float32, reason)
    position, too_large = _position_bytes(config, device), []
    for scheme in reversed(SCHEMES):
        weights = nbytes(quantized_model(config, scheme))
        positions = min(sizes.context, (available - weights) // position)
        if positions >= min(sizes.context, FEWEST_POSITIONS):
            reason = (
                f"{scheme} on the CPU, quantised while loading: {need} in float32, too much; in {scheme} the weights "
                f"take {format_bytes(weights)}, and {positions} positions of context fit beside them in "
                f"{format_bytes(available)} available."
            )
            return Placement(device, torch.float32, reason, scheme)
        too_large.append(f"{format_bytes(weights)} in {scheme}")
    raise CapacityError(
        f"The model does not fit in memory: {need} in float32, the weights alone {' and '.join(too_large)}, and "
        f"{format_bytes(available)} are available. Free memory, use a larger machine, or pass dtype='bfloat16' to try "
        "nevertheless."
    )


def _position_bytes(config: Qwen2AudioConfig, device: torch.device) -> int:
    """Bytes of one position in the KV cache of a quantised model: float16 with native kernels, otherwise float32."""
    native = device.type == "cpu" and fused.kernels() is not None
    return sizes_of(config).kv_values * (torch.float16 if native else torch.float32).itemsize


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
