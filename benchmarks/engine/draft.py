"""What a draft model gains: on the shape that is measured by how often it is right, on nano by its own int4 copy.

Random checkpoints cannot predict each other, so there the share of right draft tokens is simulated: the draft is made
to give the answer with errors. What drafting and verifying cost is real.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qwen2_audio.bench.report import Row
from qwen2_audio.checkpoint.config import Qwen2AudioConfig
from qwen2_audio.checkpoint.locate import nano_path
from qwen2_audio.evaluate import random_checkpoint
from qwen2_audio.evaluate.random_checkpoint import Shape

from ..harness.rows import row_of
from ..harness.worker_process import Worker

DRAFT_TOKENS = 4  # a step, at most
SHARES = (50, 80, 95)  # percent of a draft's tokens that are right
HEAD_WIDTH = 64

Progress = Callable[[str], None]


def draft_shape(config: Qwen2AudioConfig) -> Shape:
    """Half the layers and a quarter of the width, with the same tokens; the encoder is as small as can be."""
    text = config.text_config
    heads = max(text.hidden_size // 4 // HEAD_WIDTH, 1)
    return Shape(
        encoder_layers=1,
        encoder_width=64,
        encoder_heads=1,
        encoder_ffn=64,
        layers=max(text.num_hidden_layers // 2, 1),
        width=heads * HEAD_WIDTH,
        heads=heads,
        ffn=max(text.intermediate_size // 4 // HEAD_WIDTH, 1) * HEAD_WIDTH,
        vocab_size=text.vocab_size,
        audio_token_index=config.audio_token_index,
    )


def make(folder: Path, scheme: str, progress: Progress) -> Path:
    """The folder of a random draft for the checkpoint in `folder`, stored as that is, kept with the others."""
    shape = draft_shape(Qwen2AudioConfig.from_pretrained(folder))
    made = random_checkpoint.ensure(shape, progress=progress)
    return random_checkpoint.quantized(made, scheme, progress) if scheme in ("int8", "int4") else made


def draft_rows(worker: Worker, folder: Path, turns: int, max_tokens: int, progress: Progress) -> list[Row]:
    """Tokens a second with the draft in `folder` over without, for each share of its tokens that is right."""
    size = worker.ask("load_draft", folder=str(folder))["value"]
    order: dict[str, Any] = {"kind": "chat", "max_tokens": max_tokens}
    gains: dict[int, list[float]] = {share: [] for share in SHARES}
    accepted: dict[int, float] = {}
    for turn in range(turns):
        progress(f"a draft that is told {', '.join(map(str, SHARES))} % of the answer: {turn + 1} of {turns}")
        plain = worker.ask("speculate", draft_tokens=0, **order)
        for share in SHARES:
            drafted = worker.ask("speculate", draft_tokens=DRAFT_TOKENS, right=share / 100, **order)
            gains[share].append(drafted["value"] / plain["value"])
            accepted[share] = drafted["accepted"]
    note = (
        f"SIMULATED: a draft that reads {size:.0%} of the model's bytes, {{}} % of it right; {{:.0%}} of tokens drafted"
    )
    return [
        row_of(f"engine.draft{share}_speedup", "x faster", gains[share], note.format(share, accepted[share]))
        for share in SHARES
    ]


def nano_row(worker: Worker, turns: int) -> Row:
    """nano with its int4 copy as its draft, on answers of its own."""
    worker.ask("load_draft", folder=str(nano_path()), quantize="int4")
    gains, accepted = [], 0.0
    for _ in range(turns):
        plain = worker.ask("answer_clips", folder=str(nano_path()), draft_tokens=0)
        drafted = worker.ask("answer_clips", folder=str(nano_path()), draft_tokens=DRAFT_TOKENS)
        gains.append(drafted["value"] / plain["value"])
        accepted = drafted["accepted"]
    note = f"nano drafted by its int4 copy, which is as deep; {accepted:.0%} of draft tokens right"
    return row_of("engine.nano_draft_speedup", "x faster", gains, note)
