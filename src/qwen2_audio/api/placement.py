"""Where a checkpoint runs on this machine, and in which dtype: sizes from its config, room from the system.

Decimal units: 1 GB = 10**9 bytes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..config import Qwen2AudioConfig
from ..errors import CapacityError
from ..model.initialize import without_weights
from ..model.qwen2_audio import Qwen2AudioForConditionalGeneration
from ..pretrained import parse_device, parse_dtype

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


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


@dataclass(frozen=True)
class Placement:
    """A device, a dtype, and one sentence on why."""

    device: torch.device
    dtype: torch.dtype
    reason: str


def place(config: Qwen2AudioConfig, device: Any = "auto", dtype: Any = "auto") -> Placement:
    """Choose what is "auto". Raises ConfigError for what is not there, CapacityError where nothing fits."""
    on = parse_device(device, "device")
    asked = parse_dtype(dtype)
    if asked is not None:
        return Placement(on, asked, f"{_name(asked)} on {on}, as asked.")
    if on.type == "cuda":
        return _on_gpu(on)
    return _on_cpu(on, sizes_of(config), stored_dtype(config), available_bytes())


def stored_dtype(config: Qwen2AudioConfig) -> torch.dtype:
    """The dtype of the checkpoint's files, as its config names it."""
    said = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None)
    return parse_dtype(said) or torch.float32


def _on_gpu(device: torch.device) -> Placement:
    name = torch.cuda.get_device_name(device)
    if torch.cuda.get_device_capability(device) >= (8, 0):
        return Placement(device, torch.bfloat16, f"bfloat16 on {device} ({name}): its native 16-bit format.")
    return Placement(device, torch.float16, f"float16 on {device} ({name}): it has no fast bfloat16.")


def _on_cpu(device: torch.device, sizes: Sizes, stored: torch.dtype, room: int | None) -> Placement:
    full = sizes.bytes(torch.float32)
    need = f"{amount(sizes.parameters)} parameters and a full context of {sizes.context} positions take"
    if room is None or full <= room:
        free = "; how much memory is free could not be found out" if room is None else f" of {size(room)} available"
        return Placement(device, torch.float32, f"float32 on the CPU, its fastest: {need} {size(full)}{free}.")
    small = stored if stored.itemsize < torch.float32.itemsize else torch.bfloat16
    half = sizes.bytes(small)
    if half > room:
        raise CapacityError(
            f"The model has no room here: {need} {size(full)} in float32 and {size(half)} in {_name(small)}, and "
            f"{size(room)} are available. Free memory, use a larger machine, or pass dtype='{_name(small)}' to try "
            "nevertheless."
        )
    return Placement(
        device,
        small,
        f"{_name(small)} on the CPU, slow without 16-bit arithmetic: {need} {size(full)} in float32, too much, and "
        f"{size(half)} in {_name(small)}, of {size(room)} available.",
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def amount(number: int) -> str:
    """8397094912 -> "8.4 B"."""
    return _scaled(number, ("", "k", "M", "B")).rstrip()


def size(number: int) -> str:
    """Bytes in decimal units: 16794189824 -> "16.8 GB"."""
    return _scaled(number, ("bytes", "kB", "MB", "GB"))


def _scaled(number: int, units: tuple[str, ...]) -> str:
    step = max(i for i in range(len(units)) if i == 0 or number >= 1000**i)
    return f"{number / 1000**step:.3g} {units[step]}"


def available_bytes() -> int | None:
    """Memory that can be taken without swapping, container limits included; None where the system does not say."""
    known = [room for room in (_meminfo(MEMINFO), _cgroup_room(CGROUP)) if room is not None]
    return min(known) if known else _free_pages()


def _meminfo(path: Path) -> int | None:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = next((line.split() for line in lines if line.startswith("MemAvailable:")), None)
    return int(found[1]) * 1024 if found else None


def _cgroup_room(folder: Path) -> int | None:
    """What the container may still take: its limit, less what it holds and cannot drop."""
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        held = int((folder / "memory.current").read_text(encoding="ascii"))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - held + int(stat.get("inactive_file", 0)))


def _free_pages() -> int | None:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
