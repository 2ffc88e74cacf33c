"""The training losses: cross-entropy of the trained tokens (SFT), and the preference loss of DPO.

B rows, T positions, N trained tokens of the batch, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..model.qwen2_audio import Qwen2AudioForConditionalGeneration

IGNORED = -100  # a label that is not trained on


@dataclass(frozen=True)
class Predictions:
    """Logits for the trained tokens only; those of all positions would take most of the memory of a step."""

    logits: torch.Tensor  # [N, V]: of the position before each trained token
    targets: torch.Tensor  # int64 [N]: the trained tokens
    rows: torch.Tensor  # int64 [N]: the row of the batch each token is in


def predict(model: Qwen2AudioForConditionalGeneration, batch: dict[str, torch.Tensor]) -> Predictions:
    """One forward pass over a right-padded batch, as `batches.collate` makes it.

    The head is computed only where the next token is trained on, and gives the logits of `model(**batch)` there. It
    is a single call of the model, in which FSDP gathers the weights.
    """
    labels = batch["labels"]
    before_trained = F.pad(labels[:, 1:] != IGNORED, (0, 1))  # [B, T]: each position predicts the next
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    logits, *_ = model(**inputs, use_cache=False, logits_to_keep=before_trained, return_dict=False)
    rows, positions = before_trained.nonzero(as_tuple=True)
    return Predictions(logits, labels[rows, positions + 1], rows)


def trained_tokens(labels: torch.Tensor) -> int:
    """The number of tokens of labels [B, T] that the loss counts; the first of a row is never predicted."""
    return int((labels[:, 1:] != IGNORED).sum())


def token_losses(predictions: Predictions) -> torch.Tensor:
    """The sum of the trained tokens' cross-entropies, in fp32.

    The step divides by the number of trained tokens of all its micro-batches, so that their split does not matter.
    """
    return F.cross_entropy(predictions.logits.float(), predictions.targets, reduction="sum")


def row_log_probabilities(predictions: Predictions, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """log p(answer | prompt) of each row, fp32 [rows], and the tokens of each answer, at least 1, int64 [rows]."""
    losses = F.cross_entropy(predictions.logits.float(), predictions.targets, reduction="none")
    sums = losses.new_zeros(rows).index_add(0, predictions.rows, -losses)
    return sums, torch.bincount(predictions.rows, minlength=rows).clamp(min=1)


@dataclass(frozen=True)
class Preferences:
    """DPO's terms for P pairs."""

    losses: torch.Tensor  # [P]
    chosen: torch.Tensor  # [P]: implicit reward, beta log(policy / reference), of the chosen answer
    rejected: torch.Tensor  # [P]: of the rejected one

    @property
    def margins(self) -> torch.Tensor:
        return self.chosen - self.rejected


def dpo_losses(policy: torch.Tensor, reference: torch.Tensor, beta: float) -> Preferences:
    """-log sigmoid(beta ((log pi_c - log ref_c) - (log pi_r - log ref_r))), Rafailov et al. 2023, equation 7.

    policy, reference: log-probabilities [2 P], the chosen answers first, then the rejected ones in the same order.
    """
    chosen, rejected = (beta * (policy - reference)).chunk(2)
    return Preferences(-F.logsigmoid(chosen - rejected), chosen, rejected)
