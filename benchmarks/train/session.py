"""One side of `bench train` in its own process: load, then one optimiser step for each order.

Run as `python -m benchmarks.train.session ours|transformers THREADS`.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any, Protocol

import torch

from qwen2_audio.audio.mel import num_audio_tokens, num_frames
from qwen2_audio.bench.clips import clip
from qwen2_audio.bench.machine import peak_memory
from qwen2_audio.checkpoint.config import Qwen2AudioConfig

from ..harness.prompts import prompt, text
from ..harness.worker_loop import serve, stdout_for_replies, timed

ANSWER = 24  # trained tokens of each row
IGNORED = -100
RANK, ALPHA, RATE = 16, 32.0, 1e-4
Measured = dict[str, Any]


class Trainer(Protocol):
    """One implementation of a training step, fp32 on the CPU. Making one imports its library."""

    def load(self, folder: Path, method: str, optimiser: str) -> None:
        """Read the checkpoint and make it ready: `method` "lora" or "full", `optimiser` "adamw" or "sgd"."""

    def prepare(self, rows: dict[str, torch.Tensor], seconds: list[float]) -> None:
        """Take the batch: ids, mask and labels [B, T], and the seconds of each row's clip."""

    def step(self) -> float:
        """Forward, backward, clipping, update; returns the loss."""


class Session:
    """The orders a worker knows: one method each."""

    def __init__(self, side: str) -> None:
        self._trainer = trainer(side)

    def load(self, folder: str, method: str, optimiser: str, seconds: list[float]) -> Measured:
        with timed() as timer:
            self._trainer.load(Path(folder), method, optimiser)
        config = Qwen2AudioConfig.from_pretrained(folder)
        self._trainer.prepare(batch(seconds, config), seconds)
        with contextlib.suppress(OSError):  # the peak from here on, where the system can forget the one so far
            Path("/proc/self/clear_refs").write_text("5")
        return {"value": timer.seconds, "check": []}

    def step(self) -> Measured:
        with timed() as timer:
            loss = self._trainer.step()
        return {"value": timer.seconds, "check": [loss]}

    def memory(self) -> Measured:
        peak = peak_memory()
        return {"value": None if peak is None else peak / 1e9, "check": []}


def batch(seconds: list[float], config: Qwen2AudioConfig) -> dict[str, torch.Tensor]:
    """A question about a clip of each length and an answer to learn, padded on the right: int64 [B, T]."""
    sizes = {"vocab_size": config.text_config.vocab_size, "audio_id": config.audio_token_index}
    rows = [prompt(audio_tokens(length), **sizes) for length in seconds]
    answer = text(ANSWER, **sizes)
    width = max(map(len, rows)) + ANSWER
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for number, row in enumerate(rows):
        end = len(row) + ANSWER
        ids[number, :end] = torch.tensor([*row, *answer])
        mask[number, :end] = 1
        labels[number, len(row) : end] = torch.tensor(answer)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def audio_tokens(seconds: float) -> int:
    return num_audio_tokens(num_frames(len(clip(seconds))))


def trainer(side: str) -> Trainer:
    if side == "ours":
        from .ours import Ours

        return Ours()
    from ..peers.transformers_training import Transformers

    return Transformers()


def main() -> None:
    side, threads = sys.argv[1], int(sys.argv[2])
    replies = stdout_for_replies()
    torch.set_num_threads(threads)
    serve(Session(side), sys.stdin, replies)


if __name__ == "__main__":
    main()
