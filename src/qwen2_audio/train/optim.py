"""Which parameters are trained, the optimiser, and the learning rate schedule."""

from __future__ import annotations

import math

import torch
from torch import nn

from ..errors import ConfigError
from ..lora import PARTS, LoraConfig, inject
from .adamw8bit import AdamW8bit
from .config import OptimConfig, TrainConfig
from .muon import Muon

POSITIONS = "audio_tower.embed_positions."  # sinusoids, never trained


def prepare(model: nn.Module, config: TrainConfig) -> None:
    """Freeze everything except what `config` trains; with method "lora" add the adapter. Raises ConfigError."""
    if config.method == "lora":
        section = config.lora
        targets: dict[str, str] = {part: getattr(section, part) for part in config.parts}
        inject(model, LoraConfig(section.rank, section.alpha, section.dropout, targets))
    else:
        model.requires_grad_(False)
        for part in config.parts:
            model.get_submodule(PARTS[part]).requires_grad_(True)
        for name, parameter in model.named_parameters():
            if name.startswith(POSITIONS):
                parameter.requires_grad_(False)
    if not trained(model):
        raise ConfigError("Nothing would be trained; name parts that have parameters.")


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trained parameters by name; one with two names (a tied head) occurs once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def training_mode(model: nn.Module, config: TrainConfig) -> None:
    """Training mode, with dropout, for the trained parts; evaluation mode for the frozen ones."""
    model.eval()
    for part in config.parts:
        model.get_submodule(PARTS[part]).train()


def optimiser(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW with fp32 or 8-bit moments, or Muon; weight decay applies to matrices, not to norms and biases."""
    if config.kind == "muon":
        return muon(model, config.learning_rate, config.betas, config.epsilon, config.weight_decay)
    kind = AdamW8bit if config.kind == "adamw8bit" else torch.optim.AdamW
    parameters = list(trained(model).values())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return kind([group for group in groups if group["params"]], config.learning_rate, config.betas, config.epsilon)


def muon(
    model: nn.Module, lr: float, betas: tuple[float, float] = (0.9, 0.98), eps: float = 1e-8, decay: float = 0.0
) -> Muon:
    """Muon over the trained parameters of `model`: matrices of linear layers turn, embeddings and heads do not."""
    parameters = trained(model)
    turned = {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.dim() == 2 and not any(part in name for part in ("embed_tokens", "embed_positions", "lm_head"))
    }
    others = [parameter for name, parameter in parameters.items() if name not in turned]
    return Muon(turned.values(), others, lr, betas, eps, decay)


def learning_rate(step: int, steps: int, config: OptimConfig) -> float:
    """The rate of a step from 0 to steps - 1: it rises linearly during warm-up, then falls as the schedule says."""
    warmup = min(config.warmup_steps, steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    share = {"constant": 1.0, "linear": 1.0 - done, "cosine": (1.0 + math.cos(math.pi * done)) / 2}[config.schedule]
    return config.learning_rate * (config.final_fraction + (1.0 - config.final_fraction) * share)
