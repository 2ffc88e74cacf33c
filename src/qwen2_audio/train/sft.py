"""Supervised fine-tuning: next-token prediction of the assistant's answers."""

from __future__ import annotations

from pathlib import Path

import torch

from ..pretrained import Qwen2AudioForConditionalGeneration
from . import loop
from .batches import collate, read
from .config import TrainConfig
from .data import Example
from .feed import MicroBatch
from .loss import predict, token_losses, trained_tokens
from .start import RunSetup, data_note, dataset_of, fingerprint, set_up, source_of


class NextToken:
    """The objective of SFT: cross-entropy of the trained tokens."""

    unit = "tokens"
    metric_names: tuple[str, ...] = ()

    def losses(
        self, model: Qwen2AudioForConditionalGeneration, batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        return token_losses(predict(model, batch)), {}


def run(config: TrainConfig) -> Path:
    """Start a run or go on from its last checkpoint; returns the folder of the adapter or checkpoint.

    Raises ConfigError, WeightsError, PromptError (no usable data), TrainingError.
    """
    return loop.run(task_of(set_up(config)))


def task_of(setup: RunSetup) -> loop.Task:
    """The task that `run` runs."""
    config = setup.config
    rows, held_out = dataset_of(setup), dataset_of(setup, evaluation=True) if config.data.eval else None
    return loop.Task(
        config,
        setup.model,
        NextToken(),
        train=source_of(setup, rows, read, _collate),
        evaluation=source_of(setup, held_out, read, _collate) if held_out is not None else None,
        fingerprint=fingerprint("sft", config, len(rows)),
        save=setup.save,
        autocast=setup.autocast,
        processes=setup.processes,
        notes=(data_note(rows),),
    )


def _collate(examples: list[Example], pad_id: int) -> MicroBatch:
    tensors = collate(examples, pad_id)
    return MicroBatch(tensors, [example.line for example in examples], trained_tokens(tensors["labels"]))
