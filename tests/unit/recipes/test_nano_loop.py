"""The training loop: exact resume, a schedule that ends low, a loss that is no number refused."""

import json

import pytest
import torch
from recipes.nano.loop import Stage, adamw, read_losses, train
from torch import nn


class KilledError(Exception):
    """Stands for a kill."""


def run(folder, steps, die_at=None, seed=0):
    stage = Stage("tiny", steps=12, batch=1, lr=0.05, warmup=3, save_every=4)
    assert stage.steps == steps
    torch.manual_seed(seed)
    network = nn.Linear(3, 2)

    def loss_of(step):
        if step == die_at:
            raise KilledError
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        return (network(x) - x[:, :2]).pow(2).mean()

    train(stage, network, adamw([(network, stage.lr)]), loss_of, folder)
    return network


def test_a_killed_run_resumed_equals_an_uninterrupted_one(tmp_path):
    whole = run(tmp_path / "a", 12)
    with pytest.raises(KilledError):
        run(tmp_path / "b", 12, die_at=7)
    resumed = run(tmp_path / "b", 12, seed=99)  # its own fresh weights must not matter
    assert torch.equal(whole.weight, resumed.weight)
    assert torch.equal(whole.bias, resumed.bias)
    assert read_losses(tmp_path / "a" / "tiny.jsonl") == read_losses(tmp_path / "b" / "tiny.jsonl")
    steps = [json.loads(line)["step"] for line in (tmp_path / "b" / "tiny.jsonl").read_text().splitlines()]
    assert steps == list(range(12))


def test_a_finished_stage_is_not_run_again(tmp_path):
    first = run(tmp_path, 12)
    again = run(tmp_path, 12, die_at=0, seed=5)
    assert torch.equal(first.weight, again.weight)


def test_the_rate_warms_up_and_ends_on_a_decay():
    stage = Stage("s", steps=100, batch=1, lr=1.0, warmup=10, decay_from=0.5)
    rates = [stage.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[20] == rates[49] == 1.0
    assert rates[99] == pytest.approx(0.02)
    assert rates[50:] == sorted(rates[50:], reverse=True)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    stage = Stage("broken", steps=2, batch=1, lr=0.1)
    network = nn.Linear(1, 1)
    with pytest.raises(RuntimeError, match="loss of step 0 of stage broken is nan; lower the learning rate"):
        train(stage, network, adamw([(network, 0.1)]), lambda step: network.weight.sum() * float("nan"), tmp_path)
