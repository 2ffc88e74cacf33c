"""What native code reads is checked first: it takes an address and trusts it."""

from __future__ import annotations

import torch


def check_tensor(name: str, tensor: torch.Tensor, count: int, dtype: torch.dtype = torch.float32) -> None:
    """Raises ValueError unless `tensor` is contiguous memory of the CPU that holds `count` numbers of `dtype`.

    `name` says which tensor of which call it is.
    """
    if tensor.dtype is dtype and tensor.numel() == count and tensor.is_cpu and tensor.is_contiguous():
        return
    layout = "contiguous" if tensor.is_contiguous() else "strided"
    raise ValueError(
        f"{name} is {layout} {_dtype_name(tensor.dtype)} {list(tensor.shape)} on {tensor.device.type}; native code "
        f"expects {count} contiguous {_dtype_name(dtype)} numbers on the CPU. Convert it first."
    )


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
