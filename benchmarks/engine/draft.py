"""What a draft gains: on the shape that is measured by how often it is right, and nano by its own int4 copy.

Random checkpoints cannot guess each other, so there the share of right guesses is made: the draft is told the answer
with errors. What guessing and checking cost is real.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen2_audio.api.loading import nano_path
from qwen2_audio.checkpoint.config import Qwen2AudioConfig

from ..harness import random_checkpoint as checkpoint
from ..harness.random_checkpoint import Shape
from ..harness.worker_process import Worker

GUESSES = 4  # a step
SHARES = (50, 80, 95)  # percent of a draft's tokens that are right
HEAD = 64  # head width

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Gain:
    """A figure to report."""

    name: str
    values: list[float]
    note: str


def draft_shape(config: Qwen2AudioConfig) -> Shape:
    """Half the layers and a quarter of the width, with the same tokens; an encoder that is hardly there."""
    text = config.text_config
    heads = max(text.hidden_size // 4 // HEAD, 1)
    return Shape(
        encoder_layers=1,
        encoder_width=64,
        encoder_heads=1,
        encoder_ffn=64,
        layers=max(text.num_hidden_layers // 2, 1),
        width=heads * HEAD,
        heads=heads,
        ffn=max(text.intermediate_size // 4 // HEAD, 1) * HEAD,
        vocab_size=text.vocab_size,
        audio_token_index=config.audio_token_index,
    )


def make(folder: Path, scheme: str, progress: Progress) -> Path:
    """The folder of a random draft for the checkpoint in `folder`, stored as that is, kept with the others."""
    shape = draft_shape(Qwen2AudioConfig.from_pretrained(folder))
    made = checkpoint.ensure(shape, progress=progress)
    return checkpoint.quantized(made, scheme, progress) if scheme in ("int8", "int4") else made


def gains(worker: Worker, folder: Path, turns: int, most: int, progress: Progress) -> list[Gain]:
    """Tokens a second with guesses of the draft in `folder` over without, for each share that is right."""
    size = worker.ask("load_draft", folder=str(folder))["value"]
    asked: dict[str, Any] = {"kind": "chat", "most": most}
    found: dict[int, list[float]] = {share: [] for share in SHARES}
    taken: dict[int, float] = {}
    for turn in range(turns):
        progress(f"a draft that is told {', '.join(map(str, SHARES))} % of the answer: {turn + 1} of {turns}")
        plain = worker.ask("guessing", guesses=0, **asked)["value"]
        for share in SHARES:
            guessed = worker.ask("guessing", guesses=GUESSES, right=share / 100, **asked)
            found[share].append(guessed["value"] / plain)
            taken[share] = guessed["accepted"]
    words = (
        f"SIMULATED: a draft that reads {size:.0%} of the model's bytes, {{}} % of it right; {{:.0%}} of tokens guessed"
    )
    return [Gain(f"engine.draft{one}_speedup", found[one], words.format(one, taken[one])) for one in SHARES]


def nano_gain(worker: Worker, turns: int) -> Gain:
    """nano with its int4 copy as its draft, on answers of its own."""
    worker.ask("load_draft", folder=str(nano_path()), quantize="int4")
    found, taken = [], 0.0
    for _ in range(turns):
        plain = worker.ask("own_words", folder=str(nano_path()), guesses=0)["value"]
        guessed = worker.ask("own_words", folder=str(nano_path()), guesses=GUESSES)
        found.append(guessed["value"] / plain)
        taken = guessed["accepted"]
    note = f"nano guessed by its int4 copy, which is as deep; {taken:.0%} of guesses right, made while they paid"
    return Gain("engine.nano_draft_speedup", found, note)
