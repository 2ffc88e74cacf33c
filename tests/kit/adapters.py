"""LoRA adapters that say something: random ones, in peft's files, for a model of any shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from qwen2_audio import lora

EVERYWHERE = {"encoder": "q_proj|fc1", "projector": "linear", "language_model": "q_proj|o_proj|down_proj|lm_head"}
TEXT = {"language_model": "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"}


def write_adapter(
    folder: Path, model: Any, seed: int, *, targets: dict[str, str] | None = None, rank: int = 4, size: float = 1.0
) -> Path:
    """Write a random adapter for `model`, which has none afterwards. `size`: of what it adds, relative to a weight."""
    lora.inject(model, lora.LoraConfig(rank=rank, alpha=2.0 * rank, targets=targets or TEXT))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for module in lora.adapted(model).values():
            torch.nn.init.normal_(module.lora_A.weight, std=module.in_features**-0.5)
            torch.nn.init.normal_(module.lora_B.weight, std=size * module.in_features**-0.5)
    lora.save_adapter(model, folder, "base")
    for path, module in lora.adapted(model).items():  # what stood there before: the same weights
        with torch.no_grad():
            module.lora_B.weight.zero_()
        owner, _, leaf = path.rpartition(".")
        setattr(model.get_submodule(owner), leaf, _plain(module))
    return folder


def _plain(module: Any) -> torch.nn.Linear:
    with torch.device("meta"):
        plain = torch.nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
    plain.weight, plain.bias = module.weight, module.bias
    return plain
