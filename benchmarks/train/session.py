"""The stopwatch of the training benchmark, the same for both sides: load, then one optimiser step for each order."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Protocol

import torch

from qwen2_audio.audio.mel import num_audio_tokens, num_frames
from qwen2_audio.bench.clips import clip
from qwen2_audio.bench.machine import peak_gb
from qwen2_audio.checkpoint.config import Qwen2AudioConfig

from ..harness.prompt_ids import question_ids_for, random_ids
from ..harness.worker_loop import timed

ANSWER_TOKENS = 24  # trained, of each row
IGNORED = -100
RANK, ALPHA, LEARNING_RATE = 16, 32.0, 1e-4
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

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

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
        """GB that the process held at most since the model was loaded, where the system can tell that."""
        return {"value": peak_gb(), "check": []}


def batch(seconds: list[float], config: Qwen2AudioConfig) -> dict[str, torch.Tensor]:
    """A question about a clip of each length and an answer to learn, padded on the right: int64 [B, T]."""
    prompts = [question_ids_for(config, audio_tokens(length)) for length in seconds]
    vocab_size, audio_id = config.text_config.vocab_size, config.audio_token_index
    answer = random_ids(ANSWER_TOKENS, vocab_size=vocab_size, audio_id=audio_id)
    width = max(map(len, prompts)) + ANSWER_TOKENS
    ids = torch.zeros(len(prompts), width, dtype=torch.int64)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for number, prompt in enumerate(prompts):
        end = len(prompt) + ANSWER_TOKENS
        ids[number, :end] = torch.tensor([*prompt, *answer])
        mask[number, :end] = 1
        labels[number, len(prompt) : end] = torch.tensor(answer)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def audio_tokens(seconds: float) -> int:
    """Audio positions of a clip of `seconds`."""
    return num_audio_tokens(num_frames(len(clip(seconds))))
