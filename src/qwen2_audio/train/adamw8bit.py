"""AdamW whose two moments take a byte each: blocks of 256 values share one fp32 scale (Dettmers et al. 2021,
https://arxiv.org/abs/2110.02861).

The value of a code is a power of the code, so that small values are stored with nearly the relative precision of large
ones:

    first moment   m = sign(c) (|c| / 127)^2 s    c in -127 .. 127, s the block's largest |m|
    second moment  v = (c / 255)^4 s              c in 0 .. 255, s the block's largest v

A v above 0 is never stored as 0, because a step divides by its square root. Tensors of fewer than 4096 values keep fp32
moments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

BLOCK = 256
SMALL = 4096  # values in a tensor whose moments stay in fp32
CHUNK = BLOCK << 14  # values that are unpacked at a time: 16 MB for each of a few fp32 tensors
State = dict[str, Any]


def pack_signed(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """fp32 [blocks, 256] -> int8 codes of the same shape and fp32 scales [blocks, 1]."""
    scale = values.abs().amax(1, keepdim=True)
    share = values.abs() / scale.clamp(min=torch.finfo(torch.float32).tiny)
    return (share.sqrt() * 127).round_().mul_(values.sign()).to(torch.int8), scale


def unpack_signed(codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    share = codes.float() / 127
    return share * share.abs() * scale


def pack_positive(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """fp32 [blocks, 256], none below 0 -> uint8 codes and fp32 scales [blocks, 1]."""
    scale = values.amax(1, keepdim=True)
    share = values / scale.clamp(min=torch.finfo(torch.float32).tiny)
    codes = (share.sqrt_().sqrt_() * 255).round_()
    return codes.masked_fill_((codes == 0) & (values > 0), 1.0).to(torch.uint8), scale


def unpack_positive(codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    share = codes.float() / 255
    return share.square_().square_() * scale


class AdamW8bit(torch.optim.Optimizer):
    """torch.optim.AdamW with packed moments."""

    def __init__(
        self, params: Any, lr: float, betas: tuple[float, float], eps: float = 1e-8, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state |= _new_state(parameter)
        state["step"] += 1
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        flat, gradient = parameter.view(-1), parameter.grad.reshape(-1)  # type: ignore[union-attr]
        if "first" in state:
            flat.add_(adam(gradient.float(), state["first"], state["second"], int(state["step"]), group))
            return
        for start in range(0, len(flat), CHUNK):
            chunk = slice(start, min(start + CHUNK, len(flat)))
            flat[chunk].add_(_packed_adam(gradient[chunk].float(), state, chunk, group))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the codes as they were saved; the base class alone would turn them into floats."""
        super().load_state_dict(state_dict)
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for number, saved in state_dict["state"].items():
            parameter = parameters[number]
            self.state[parameter] = {name: tensor.to(parameter.device, copy=True) for name, tensor in saved.items()}


def _new_state(parameter: torch.Tensor) -> State:
    size, device = parameter.numel(), parameter.device
    state: State = {"step": torch.zeros(())}
    if size < SMALL:
        return state | {name: torch.zeros(size, device=device) for name in ("first", "second")}
    blocks = -(-size // BLOCK)
    return state | {
        "first_codes": torch.zeros(blocks, BLOCK, dtype=torch.int8, device=device),
        "first_scales": torch.zeros(blocks, 1, device=device),
        "second_codes": torch.zeros(blocks, BLOCK, dtype=torch.uint8, device=device),
        "second_scales": torch.zeros(blocks, 1, device=device),
    }


def _packed_adam(gradient: torch.Tensor, state: State, chunk: slice, group: dict[str, Any]) -> torch.Tensor:
    """The update of one chunk of a parameter, fp32 [values]; its moments are unpacked, updated and packed again."""
    blocks = slice(chunk.start // BLOCK, -(-chunk.stop // BLOCK))
    first = unpack_signed(state["first_codes"][blocks], state["first_scales"][blocks])
    second = unpack_positive(state["second_codes"][blocks], state["second_scales"][blocks])
    size = len(gradient)
    change = adam(gradient, first.view(-1)[:size], second.view(-1)[:size], int(state["step"]), group)
    state["first_codes"][blocks], state["first_scales"][blocks] = pack_signed(first)
    state["second_codes"][blocks], state["second_scales"][blocks] = pack_positive(second)
    return change


def adam(
    gradient: torch.Tensor, first: torch.Tensor, second: torch.Tensor, step: int, group: dict[str, Any]
) -> torch.Tensor:
    """Update both moments in place; returns what to add to the parameter. All fp32 [values]."""
    beta1, beta2 = group["betas"]
    first.lerp_(gradient, 1 - beta1)
    second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    root = (second / (1 - beta2**step)).sqrt_().add_(group["eps"])
    change: torch.Tensor = (first / root).mul_(-group["lr"] / (1 - beta1**step))
    return change
