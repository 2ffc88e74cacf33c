"""In which precision a training step multiplies: float32, or bfloat16 by autocast where the machine is fast at it."""

from __future__ import annotations

import warnings

import torch


def fast_bfloat16(device: torch.device | str = "cpu") -> bool:
    """Whether `device` multiplies bfloat16 matrices in hardware: on a CPU by AMX or AVX-512 BF16."""
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    has = torch.cpu.get_capabilities()
    return bool(has.get("amx_bf16") or has.get("avx512_bf16"))


def autocast_wanted(precision: str, device: torch.device) -> bool:
    """Whether "auto", "float32" or "bfloat16" means autocast to bfloat16 on `device`; "auto" does on a GPU that can.

    Warns where bfloat16 is asked of a CPU without its instructions: measured on one with AVX2 alone, a product took 25
    to 50 times as long as in float32.
    """
    if precision == "bfloat16" and device.type == "cpu" and not fast_bfloat16(device):
        warnings.warn(
            "precision is 'bfloat16', and this CPU has no instructions for it (AMX or AVX-512 BF16): "
            "it will be many times slower than 'float32'.",
            stacklevel=2,
        )
    return precision == "bfloat16" or (precision == "auto" and device.type == "cuda" and fast_bfloat16(device))
