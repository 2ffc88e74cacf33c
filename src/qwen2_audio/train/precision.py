"""The arithmetic of a training step: float32, or bfloat16 by autocast; products with a quantised base."""

from __future__ import annotations

import warnings
from collections.abc import Collection

import torch
from torch import nn

from ..lora import PARTS
from ..quantize.linear import QuantizedLinear


def fast_bfloat16(device: torch.device | str = "cpu") -> bool:
    """Whether `device` multiplies bfloat16 matrices in hardware; on a CPU with AMX or AVX-512 BF16."""
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def autocast_wanted(precision: str, device: torch.device) -> bool:
    """Whether "auto", "float32" or "bfloat16" means autocast to bfloat16 on `device`; "auto": on a GPU that has it.

    Warns of "bfloat16" on a CPU without such instructions: measured on one with AVX2 only, a matrix product took 25 to
    50 times as long as in float32.
    """
    if precision == "bfloat16" and device.type == "cpu" and not fast_bfloat16(device):
        warnings.warn(
            "precision is 'bfloat16', and this CPU has no instructions for it (AMX or AVX-512 BF16): "
            "it will be many times slower than 'float32'.",
            stacklevel=2,
        )
    return precision == "bfloat16" or (precision == "auto" and device.type == "cuda" and fast_bfloat16(device))


def compute_as_with_gradients(model: nn.Module, parts: Collection[str]) -> None:
    """Let quantised Linears compute the same with gradients and without, from the first of the trained `parts` on.

    The native kernels, which quantise their input too, cannot take a gradient. Without this they would compute some
    passes and not others: DPO's reference but not its policy, evaluations but not steps. Parts before the first
    trained one never have a gradient, and keep the kernels.
    """
    names = list(PARTS)  # in the order in which they compute
    for part in names[min(names.index(part) for part in parts) :]:
        for module in model.get_submodule(PARTS[part]).modules():
            if isinstance(module, QuantizedLinear):
                module.dequantizes = True
