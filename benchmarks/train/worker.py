"""Our side of the training benchmark in its own process: the trainer's step, on log-mels no longer than their clips.

Run as `python -m benchmarks.train.worker THREADS`.
"""

from __future__ import annotations

from pathlib import Path

import torch

from qwen2_audio.audio import mel
from qwen2_audio.bench.clips import clip
from qwen2_audio.inputs.collate import stack_clips
from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration
from qwen2_audio.train import loop, optim, sft
from qwen2_audio.train.config import PARTS, DataConfig, LoraSection, OptimConfig, TrainConfig
from qwen2_audio.train.feed import MicroBatch, Position, Source, StepData
from qwen2_audio.train.loss import trained_tokens

from ..harness.torch_worker import run_torch_worker
from .session import ALPHA, LEARNING_RATE, RANK, Session


class Ours:
    """This package's trainer."""

    def __init__(self) -> None:
        self._steps = 0

    def load(self, folder: Path, method: str, optimiser: str) -> None:
        model = Qwen2AudioForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        config = TrainConfig(
            DataConfig(train=""), output="", method="full" if method == "full" else "lora",
            parts=PARTS if method == "full" else ("language_model",), lora=LoraSection(rank=RANK, alpha=ALPHA),
            optim=OptimConfig(learning_rate=LEARNING_RATE, schedule="constant"),
        )  # fmt: skip
        optim.prepare(model, config)
        optim.training_mode(model, config)
        self._optimiser = optim.optimiser(model, config.optim)
        if optimiser == "sgd":
            self._optimiser = torch.optim.SGD(list(optim.trained(model).values()), LEARNING_RATE)
        nothing = Source(lambda epoch: [], lambda plan, epoch: iter(()))
        self._task = loop.Task(config, model, sft.NextToken(), nothing, None, {}, lambda folder: None)

    def prepare(self, rows: dict[str, torch.Tensor], seconds: list[float]) -> None:
        clips = [clip(length) for length in seconds]
        features = stack_clips([mel.log_mel(sound) for sound in clips], [mel.num_frames(len(sound)) for sound in clips])
        lines = list(range(1, len(seconds) + 1))
        self._data = StepData([MicroBatch(rows | features, lines, trained_tokens(rows["labels"]))], Position(0, 0))

    def step(self) -> float:
        self._steps += 1
        return float(loop.train_step(self._task, self._optimiser, self._data, self._steps - 1, 1000)["loss"])


if __name__ == "__main__":
    run_torch_worker(lambda threads: Session(Ours()), gradients=True)
