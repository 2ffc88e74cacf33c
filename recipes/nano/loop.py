"""The training loop both stages share: schedule, clipping, log, atomic checkpoints, exact resume.

Of torchrun's processes each computes the loss of its share of a batch; all take the same step.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import torch
from torch import nn

from qwen2_audio.distributed.process_group import Processes, join
from qwen2_audio.train.start import keep_compiled

from .errors import RecipeError


@dataclass(frozen=True)
class Stage:
    """One stage of training."""

    name: str
    steps: int
    batch: int
    lr: float
    warmup: int = 100  # steps
    decay_from: float = 0.5  # share of the steps after which the rate falls to 0; always end on a decay
    save_every: int = 100  # steps: what a kill loses at most
    clip: float = 1.0  # norm of the gradient

    def rate(self, step: int) -> float:
        """Learning rate of a step, relative to `lr`."""
        start = self.decay_from * self.steps
        falling = 1.0 if step < start else (self.steps - step) / (self.steps - start)
        return min((step + 1) / self.warmup, 1.0, max(falling, 0.02))


def adamw(parts: list[tuple[nn.Module, float]]) -> torch.optim.AdamW:
    """AdamW over modules with their learning rates; matrices decay, vectors do not."""
    groups = []
    for module, lr in parts:
        weights = list(module.parameters())
        for decay, chosen in ((0.02, [w for w in weights if w.dim() > 1]), (0.0, [w for w in weights if w.dim() <= 1])):
            groups.append({"params": chosen, "lr": lr, "base": lr, "weight_decay": decay})
    return torch.optim.AdamW(groups, betas=(0.9, 0.98))


def processes() -> Processes:
    """This process among those that torchrun started; alone without it."""
    return join("ddp" if "RANK" in os.environ else "none", torch.device("cpu"))


def train(
    stage: Stage,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[int], torch.Tensor],
    folder: Path,
) -> None:
    """Run the steps of `stage` that its checkpoint in `folder` has not done yet.

    `loss_of(step)` gives the loss of that step's batch, or of this process's share of it. The log is
    `folder/<stage>.jsonl`, one line a step.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    keep_compiled()
    path, log, here = folder / f"{stage.name}.pt", folder / f"{stage.name}.jsonl", processes()
    begin = _resumed(path, log if here.first else None, network, optimizer)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not here.first) as progress, _log(log, here) as file:
        bar = progress.add_task(stage.name, total=stage.steps, completed=begin)
        started = time.monotonic()
        for step in range(begin, stage.steps):
            row = _step(stage, step, network, optimizer, loss_of, here)
            row["seconds"] = round(time.monotonic() - started, 2)
            file.write(json.dumps(row) + "\n")
            file.flush()
            progress.update(bar, advance=1, description=f"{stage.name}  loss {row['loss']:.3f}")
            if ((step + 1) % stage.save_every == 0 or step + 1 == stage.steps) and here.first:
                _save(path, step + 1, network, optimizer)


def _log(path: Path, here: Processes) -> TextIO:
    return (path if here.first else Path(os.devnull)).open("a", encoding="utf-8")


def _step(
    stage: Stage,
    step: int,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[int], torch.Tensor],
    here: Processes,
) -> dict[str, float]:
    for group in optimizer.param_groups:
        group["lr"] = group["base"] * stage.rate(step)
    loss = loss_of(step) / here.size
    mean = here.total({"loss": float(loss.detach())})["loss"]
    if not math.isfinite(mean):
        raise RecipeError(f"The loss of step {step} of stage {stage.name} is {mean}; lower the learning rate.")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    here.sum_gradients(network.parameters())
    norm = nn.utils.clip_grad_norm_(network.parameters(), stage.clip)
    optimizer.step()
    return {"step": step, "loss": round(mean, 5), "norm": round(float(norm), 3)}


def _save(path: Path, step: int, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    part = path.with_suffix(".part")
    torch.save({"step": step, "network": network.state_dict(), "optimizer": optimizer.state_dict()}, part)
    part.replace(path)  # atomic: a kill leaves the old file or the new one


def _resumed(path: Path, log: Path | None, network: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load the stage's checkpoint, drop log lines beyond it, and return the steps done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done = 0
    if path.is_file():
        state = torch.load(path, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        done = int(state["step"])
    if log is not None:
        lines = log.read_text(encoding="utf-8").splitlines()[:done] if log.is_file() else []
        log.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return done


def read_losses(log: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in log.read_text(encoding="utf-8").splitlines()]
