"""Whether two states of a model say the same: their logits on the bundled clips."""

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
# Of the largest logit: what the order of additions may do, and what rounding a sum of two weights to 16 bits does.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


@dataclass(frozen=True)
class Difference:
    """How far the logits of two models lie apart."""

    largest: float  # between two logits
    logit: float  # the largest one
    same_best: int  # positions with the same best token
    positions: int
    tolerance: float  # of the largest logit

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
    """float32 [positions, V]: a question about each of a few bundled clips, and a text without one."""
    rows = []
    for clip in (*CLIPS, None):
        sound = None if clip is None else nano_path() / "clips" / f"{clip}.wav"
        prompt = build_prompt(
            [messages.user("What is that sound?", audio=sound)], processor, custom_template(processor)
        )
        inputs = {name: tensor.to(model.device) for name, tensor in to_tensors([prompt], 0).items()}
        rows.append(model(**inputs, use_cache=False).logits[0].float().cpu())
    return torch.cat(rows)


def difference(one: torch.Tensor, other: torch.Tensor, dtype: torch.dtype) -> Difference:
    """Between two results of `logits_of`, of models whose weights have `dtype`."""
    same = int((one.argmax(1) == other.argmax(1)).sum())
    return Difference(
        float((one - other).abs().max()), float(one.abs().max()), same, len(one), TOLERANCE.get(dtype, 1e-4)
    )
