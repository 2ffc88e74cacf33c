import math

import pytest
import torch

from kit.tiny import AUDIO_ID, tiny_config, tiny_model
from qwen2_audio.train.config import OptimConfig
from qwen2_audio.train.loss import (
    Predictions,
    dpo_losses,
    predict,
    row_log_probabilities,
    token_losses,
    trained_tokens,
)
from qwen2_audio.train.optim import learning_rate, optimiser


@pytest.fixture(scope="module")
def model():
    return tiny_model(tiny_config({"encoder_layers": 1}))


def batch():
    """Two rows, padded on the right, clips of 60 and 37 frames; the loss on the last two tokens of each."""
    rows = [[5, 6] + [AUDIO_ID] * 15 + [7, 8, 9], [4] + [AUDIO_ID] * 9 + [10, 11]]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = (ids != 0).long()
    labels = torch.full_like(ids, -100)
    for i, row in enumerate(rows):
        labels[i, len(row) - 2 : len(row)] = ids[i, len(row) - 2 : len(row)]
    torch.manual_seed(1)
    return {
        "input_ids": ids, "attention_mask": mask, "labels": labels, "input_features": torch.randn(2, 8, 60),
        "feature_attention_mask": (torch.arange(60)[None] < torch.tensor([[60], [37]])).int(),
    }  # fmt: skip


def test_the_logits_are_those_of_the_whole_forward_pass(model):
    given = batch()
    found = predict(model, given)
    whole = model(**{k: v for k, v in given.items() if k != "labels"}, use_cache=False).logits
    assert found.targets.tolist() == [8, 9, 10, 11]
    assert found.rows.tolist() == [0, 0, 1, 1]
    expected = torch.stack([whole[0, 17], whole[0, 18], whole[1, 9], whole[1, 10]])
    torch.testing.assert_close(found.logits, expected, rtol=1e-5, atol=1e-6)


def test_the_mean_is_the_models_own_loss(model):
    given = batch()
    mean = token_losses(predict(model, given)) / trained_tokens(given["labels"])
    torch.testing.assert_close(mean, model(**given, use_cache=False).loss)


def test_padding_changes_no_row(model):
    given = batch()
    together, _ = row_log_probabilities(predict(model, given), 2)
    alone = {k: v[1:] for k, v in given.items()}
    alone = {k: v[:, :12] if k in ("input_ids", "attention_mask", "labels") else v for k, v in alone.items()}
    torch.testing.assert_close(row_log_probabilities(predict(model, alone), 1)[0], together[1:], rtol=1e-4, atol=1e-5)


def test_a_text_without_clips_is_predicted_too(model):
    ids = torch.tensor([[5, 6, 7]])
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.tensor([[-100, -100, 7]])}
    assert predict(model, given).targets.tolist() == [7]


def test_the_first_token_of_a_row_is_not_counted():
    assert trained_tokens(torch.tensor([[5, 6, -100]])) == 1


def test_row_log_probabilities_by_hand():
    logits = torch.log(torch.tensor([[0.5, 0.5], [0.25, 0.75], [0.1, 0.9]]))
    given = Predictions(logits, torch.tensor([0, 1, 0]), torch.tensor([0, 0, 2]))
    plain, tokens = row_log_probabilities(given, 3)
    torch.testing.assert_close(plain, torch.tensor([math.log(0.5 * 0.75), 0.0, math.log(0.1)]))
    assert tokens.tolist() == [2, 1, 1]


def test_dpo_of_equal_policies_is_log_2():
    policy = torch.tensor([-3.0, -5.0, -4.0, -1.0])
    terms = dpo_losses(policy, policy, 0.1)
    torch.testing.assert_close(terms.losses, torch.full((2,), math.log(2)))
    assert terms.margins.tolist() == [0.0, 0.0]


def test_dpo_by_hand():
    """Two pairs; chosen -1, -2, rejected -3, -4, against a reference of -2, -2, -3, -2."""
    terms = dpo_losses(torch.tensor([-1.0, -2.0, -3.0, -4.0]), torch.tensor([-2.0, -2.0, -3.0, -2.0]), 0.5)
    assert terms.chosen.tolist() == [0.5, 0.0]
    assert terms.rejected.tolist() == [0.0, -1.0]
    expected = [-math.log(1 / (1 + math.exp(-margin))) for margin in (0.5, 1.0)]
    torch.testing.assert_close(terms.losses, torch.tensor(expected))


def test_dpo_pushes_the_answers_apart():
    policy = torch.tensor([-1.0, -1.0], requires_grad=True)
    dpo_losses(policy, policy.detach(), 0.1).losses.sum().backward()
    torch.testing.assert_close(policy.grad, torch.tensor([-0.05, 0.05]))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.775, 0.55, 0.325]),
        ("cosine", [0.5, 1.0, 1.0, 0.868198, 0.55, 0.231802]),
    ],
)
def test_schedules(schedule, expected):
    config = OptimConfig(learning_rate=1.0, schedule=schedule, warmup_steps=2, final_fraction=0.1)
    assert [learning_rate(step, 6, config) for step in range(6)] == pytest.approx(expected, abs=1e-6)


def test_a_warm_up_longer_than_the_run_only_rises():
    config = OptimConfig(learning_rate=1.0, warmup_steps=10)
    assert [learning_rate(step, 2, config) for step in range(2)] == [0.5, 1.0]


def test_weight_decay_is_for_matrices(model):
    groups = optimiser(model, OptimConfig(weight_decay=0.1)).param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert {p.dim() for p in groups[1]["params"]} == {1}
