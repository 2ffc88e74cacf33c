"""Compares two states of a model by their logits on the bundled clips."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..checkpoint.locate import nano_path
from ..inputs import messages
from ..inputs.collate import to_tensors
from ..inputs.processor import Qwen2AudioProcessor
from ..inputs.prompt import build_prompt, custom_template
from ..pretrained import Qwen2AudioForConditionalGeneration

CLIPS = ("dog", "bell", "rain", "piano")
# Allowed difference as a share of the largest logit: additions in another order; rounding merged weights to 16 bits.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


@dataclass(frozen=True)
class Difference:
    """The difference between the logits of two models."""

    largest: float  # absolute difference
    logit: float  # the largest absolute logit
    same_best: int  # positions with the same most likely token
    positions: int
    tolerance: float  # allowed share of the largest logit

    @property
    def passed(self) -> bool:
        return self.largest <= self.tolerance * self.logit

    def __str__(self) -> str:
        return (
            f"largest difference {self.largest:.1e} (the largest logit is {self.logit:.1f}, {self.tolerance:g} of it "
            f"may differ), same best token at {self.same_best} of {self.positions} positions"
        )


@torch.no_grad()
def logits_of(model: Qwen2AudioForConditionalGeneration, processor: Qwen2AudioProcessor) -> torch.Tensor:
    """float32 [positions, V]: logits of a question about each of a few bundled clips, and of one without a clip."""
    rows = []
    for clip in (*CLIPS, None):
        audio = None if clip is None else nano_path() / "clips" / f"{clip}.wav"
        question = [messages.user("What is that sound?", audio=audio)]
        prompt = build_prompt(question, processor, custom_template(processor))
        inputs = {name: tensor.to(model.device) for name, tensor in to_tensors([prompt], 0).items()}
        rows.append(model(**inputs, use_cache=False).logits[0].float().cpu())
    return torch.cat(rows)


def difference(before: torch.Tensor, after: torch.Tensor, dtype: torch.dtype) -> Difference:
    """Compare two results of `logits_of`, of models whose weights have `dtype`."""
    same = int((before.argmax(1) == after.argmax(1)).sum())
    return Difference(
        float((before - after).abs().max()), float(before.abs().max()), same, len(before), TOLERANCE.get(dtype, 1e-4)
    )
