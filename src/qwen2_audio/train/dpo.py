"""Direct preference optimisation: the chosen answer becomes likelier than the rejected one, relative to a reference.

Rafailov et al. 2023, https://arxiv.org/abs/2305.18290. The reference is the model before training: with LoRA the model
with its adapter switched off, otherwise a frozen copy. With `nll_weight` the loss per token of the chosen answer is
added, so that it does not become unlikely together with the rejected one (Pang et al. 2024,
https://arxiv.org/abs/2404.19733).
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from .. import lora
from ..pretrained import Qwen2AudioForConditionalGeneration
from . import loop
from .batches import collate, read_pairs
from .config import DpoConfig, TrainConfig
from .data import Pair
from .feed import MicroBatch
from .loss import dpo_losses, predict, row_log_probabilities
from .start import RunSetup, data_note, dataset_of, fingerprint, set_up, source_of


class Preference:
    """DPO's loss on batches whose first half are the chosen answers and whose second half the rejected ones."""

    unit = "pairs"
    metric_names: tuple[str, ...] = ("margin", "accuracy", "reward_chosen", "reward_rejected")

    def __init__(self, config: DpoConfig, reference: Qwen2AudioForConditionalGeneration | None) -> None:
        """`reference`: None where it is the trained model without its adapter."""
        self.config, self.reference = config, reference

    def losses(
        self, model: Qwen2AudioForConditionalGeneration, batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        sums, tokens = self._log_probabilities(model, batch)
        with torch.no_grad():
            reference, _ = self._log_probabilities_of_reference(model, batch)
        divisor = tokens if self.config.length_normalised else 1
        terms = dpo_losses(sums / divisor, reference / divisor, self.config.beta)
        losses = terms.losses
        if self.config.nll_weight:
            losses = losses - self.config.nll_weight * (sums / tokens)[: len(losses)]
        return losses.sum(), {
            "margin": float(terms.margins.detach().sum()),
            "accuracy": float((terms.margins.detach() > 0).sum()),
            "reward_chosen": float(terms.chosen.detach().sum()),
            "reward_rejected": float(terms.rejected.detach().sum()),
        }

    def _log_probabilities(
        self, model: Qwen2AudioForConditionalGeneration, batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return row_log_probabilities(predict(model, batch), len(batch["input_ids"]))

    def _log_probabilities_of_reference(
        self, model: Qwen2AudioForConditionalGeneration, batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.reference is not None:
            return self._log_probabilities(self.reference, batch)
        modes = {module: module.training for module in model.modules()}
        model.eval()  # with dropout the reference would differ in every step
        try:
            with lora.disabled(model):
                return self._log_probabilities(model, batch)
        finally:
            for module, training in modes.items():
                module.training = training


def run(config: TrainConfig) -> Path:
    """Start a run or go on from its last checkpoint; returns the folder of the adapter or checkpoint.

    Raises ConfigError, WeightsError, PromptError (no usable data), TrainingError.
    """
    return loop.run(task_of(set_up(config)))


def task_of(setup: RunSetup) -> loop.Task:
    """The task that `run` runs."""
    config = setup.config
    reference = None
    if config.method == "full":
        reference = copy.deepcopy(setup.model).requires_grad_(False).eval()
    rows, held_out = dataset_of(setup, pairs=True), None
    if config.data.eval:
        held_out = dataset_of(setup, evaluation=True, pairs=True)
    return loop.Task(
        config,
        setup.model,
        Preference(config.dpo, reference),
        train=source_of(setup, rows, read_pairs, _collate),
        evaluation=source_of(setup, held_out, read_pairs, _collate) if held_out is not None else None,
        fingerprint=fingerprint("dpo", config, len(rows)),
        save=setup.save,
        autocast=setup.autocast,
        processes=setup.processes,
        notes=(data_note(rows),),
        frozen=() if reference is None else (reference,),
    )


def _collate(pairs: list[Pair], pad_id: int) -> MicroBatch:
    examples = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    return MicroBatch(collate(examples, pad_id), [pair.chosen.line for pair in pairs], len(pairs))
