"""A checkpoint's shape, its memory, and this machine's choices for it, without reading weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from ..api.placement import Sizes, choose_placement, quantized_model, sizes_of, stored_dtype
from ..checkpoint.config import Qwen2AudioConfig
from ..checkpoint.locate import about, find
from ..checkpoint.memory import available_bytes
from ..errors import CapacityError
from ..native import library
from ..pretrained.options import stored_scheme
from ..quantize.checkpoint import nbytes
from ..quantize.scheme import SCHEMES, Scheme

TOKENS_PER_SECOND = 25  # audio tokens per second of a clip
DTYPES = (torch.float32, torch.bfloat16)  # float16 takes as much memory as bfloat16
CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def facts_of_checkpoint(target: str | None) -> dict[str, Any]:
    """The facts about the checkpoint `target`; None: the default. Raises WeightsError, ConfigError."""
    where = find(target)
    config = Qwen2AudioConfig.from_pretrained(where)
    sizes, stored = sizes_of(config), stored_scheme(where, config)
    return {
        "checkpoint": str(where),
        "about": about(where),
        **_shape(config, sizes, stored),
        **_memory(config, sizes, stored),
        **_machine(config),
    }


def _shape(config: Qwen2AudioConfig, sizes: Sizes, stored: Scheme | None) -> dict[str, Any]:
    audio, text = config.audio_config, config.text_config
    return {
        "parameters": sizes.parameters,
        "of_which": {
            "encoder": sizes.encoder,
            "projector": sizes.projector,
            "language_model": sizes.language_model,
        },
        "encoder": f"{audio.encoder_layers} layers, {audio.d_model} wide, {audio.num_mel_bins} mel bins",
        "language_model": (
            f"{text.num_hidden_layers} layers, {text.hidden_size} wide, {text.num_attention_heads} heads, "
            f"{text.num_key_value_heads} key-value heads, vocabulary of {text.vocab_size}"
        ),
        "stored_as": str(stored_dtype(config)).removeprefix("torch.") if stored is None else stored.name,
        "context": sizes.context,
        "seconds_of_audio_that_fit": sizes.context // TOKENS_PER_SECOND,
    }


def _memory(config: Qwen2AudioConfig, sizes: Sizes, stored: Scheme | None) -> dict[str, Any]:
    """The memory of a quantised checkpoint in its scheme, or of a plain one in each dtype and scheme."""
    names = {} if stored else {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES}
    quantized = {stored.name: stored} if stored else {scheme: scheme for scheme in SCHEMES}
    models = {name: quantized_model(config, scheme) for name, scheme in quantized.items()}
    cache = names or {"float32": torch.float32, "float16": torch.float16}  # float16 with native kernels
    return {
        "weights_bytes": {name: sizes.parameters * dtype.itemsize for name, dtype in names.items()}
        | {name: nbytes(model) for name, model in models.items()},
        "kv_cache_bytes_per_token": {name: sizes.kv_values * dtype.itemsize for name, dtype in cache.items()},
        "bytes_read_per_new_token": {name: sizes.language_model * dtype.itemsize for name, dtype in names.items()}
        | {name: nbytes(model.language_model) for name, model in models.items()},
    }


def _machine(config: Qwen2AudioConfig) -> dict[str, Any]:
    available = available_bytes()
    try:
        choice = choose_placement(config).reason
    except CapacityError as error:
        choice = str(error)
    return {
        "dtype_auto_here": choice,
        "memory_available_bytes": available,
        "threads": {"torch": torch.get_num_threads(), "cpus": os.cpu_count() or 1},
        "kernels": library.load().reason,
        "cpu_features": cpu_features(Path("/proc/cpuinfo")) or [torch.backends.cpu.get_cpu_capability()],
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def cpu_features(path: Path) -> list[str]:
    """The CPU's instruction sets that the kernels can use; [] if the system does not say."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return [flag for flag in CPU_FLAGS if flag in flags]
