"""The options of `from_pretrained` and `save_pretrained`: read, and checked against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..checkpoint import weights
from ..checkpoint.config import Config
from ..errors import ConfigError
from ..quantize.scheme import KEY as QUANTIZED
from ..quantize.scheme import Scheme

DTYPES = {
    "float32": torch.float32, "fp32": torch.float32,
    "float16": torch.float16, "fp16": torch.float16,
    "bfloat16": torch.bfloat16, "bf16": torch.bfloat16,
}  # fmt: skip
SIZE_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_dtype(dtype: torch.dtype | str | None, torch_dtype: torch.dtype | str | None = None) -> torch.dtype | None:
    """torch.float32, float16 or bfloat16, from `dtype` or its older name; None for "auto" and None.

    Raises ConfigError for any other value, and when both are given and differ.
    """
    if dtype is not None and torch_dtype is not None and parse_dtype(dtype) != parse_dtype(torch_dtype):
        raise ConfigError(f"dtype is {dtype} and torch_dtype, its older name, is {torch_dtype}; give one.")
    value = dtype if dtype is not None else torch_dtype
    if value is None or value == "auto":
        return None
    parsed = DTYPES.get(str(value).removeprefix("torch."))
    if parsed is None:
        raise ConfigError(f"dtype is {value!r}; expected 'auto', 'float32', 'float16' or 'bfloat16'.")
    return parsed


def check_quantized_dtype(scheme: str | None, dtype: torch.dtype | None) -> None:
    """Raise ConfigError for a dtype other than float32, the only one that a quantised model computes in."""
    if scheme is not None and dtype not in (None, torch.float32):
        raise ConfigError(
            f"dtype is {str(dtype).removeprefix('torch.')} for a model quantised to {scheme}, which computes in "
            "float32; leave dtype out, or load the plain checkpoint without quantize."
        )


def parse_device(device_map: Any, option: str = "device_map") -> torch.device:
    """The device that `device_map` names; `option` is its name in messages.

    Raises ConfigError for a map of several devices, and for a device that is not there.
    """
    if isinstance(device_map, dict) and set(device_map) == {""}:
        device_map = device_map[""]
    gpus = torch.cuda.device_count()
    if device_map is None:
        return torch.device("cpu")
    if device_map == "auto":
        return torch.device("cuda" if gpus else "cpu")
    try:
        valid = isinstance(device_map, (str, int, torch.device)) and not isinstance(device_map, bool)
        device = torch.device(f"cuda:{device_map}" if isinstance(device_map, int) else device_map) if valid else None
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ConfigError(
            f"{option} is {device_map!r}; expected None, 'auto', 'cpu', 'cuda', 'cuda:1', an index, a torch.device "
            "or {'': device}. A model lies on one device."
        )
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise ConfigError(f"{option} asks for {device}, but {gpus} CUDA devices are visible; use 'cpu' or 'auto'.")
    return device


def parse_size(size: int | str) -> int:
    """Bytes from a number, or from text such as "5GB" or "500MiB". Raises ConfigError for anything else."""
    text = str(size).strip().upper()
    unit = next((unit for unit in SIZE_UNITS if text.endswith(unit)), "")
    number = text.removesuffix(unit).strip()
    if not number.isdecimal() or int(number) < 1:
        raise ConfigError(f"max_shard_size is {size!r}; expected a number of bytes, or text such as '5GB' or '500MB'.")
    return int(number) * SIZE_UNITS.get(unit, 1)


def stored_dtype(config: Config, checkpoint: weights.Checkpoint) -> torch.dtype | None:
    """The dtype that the config names, else that of the checkpoint's first float tensor."""
    for key in ("dtype", "torch_dtype"):
        name = getattr(config, key, None)
        if name is not None:
            return parse_dtype(name)
    return next((dtype for name in checkpoint.stored if (dtype := checkpoint.dtype(name)) is not None), None)


def stored_scheme(
    folder: str | Path, config: Config, quantize: str | None = None, dtype: torch.dtype | None = None
) -> Scheme | None:
    """The scheme of a quantised checkpoint with this config; None for a plain checkpoint.

    Raises WeightsError for a scheme that cannot be read, ConfigError if `quantize` or `dtype` contradict it.
    """
    stored = getattr(config, QUANTIZED, None)
    if not stored:
        return None
    scheme = Scheme.from_config(stored, folder)
    if quantize not in (None, scheme.name):
        raise ConfigError(
            f"{folder} is quantised to {scheme.name} already and cannot become {quantize}; leave quantize out, or take "
            "the checkpoint that it was made from."
        )
    check_quantized_dtype(scheme.name, dtype)
    return scheme
