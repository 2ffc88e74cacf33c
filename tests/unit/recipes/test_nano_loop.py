"""The training loop: exact resume, a schedule that ends low, a loss that is no number refused."""

import json

import pytest
import torch
from recipes.nano.loop import Stage, adamw, read_losses, train
from torch import nn

from kit import warm


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


PROGRAM = """
import sys
from pathlib import Path
import torch
from torch import nn
from recipes.nano.loop import Stage, adamw, processes, train
here = processes()
torch.manual_seed(here.rank)  # only the batch may differ between processes
stage = Stage("tiny", steps=6, batch=4, lr=0.05, warmup=3, save_every=4)
network = nn.Linear(3, 2)
with torch.no_grad():
    network.weight.fill_(0.1)
    network.bias.zero_()
def loss_of(step):
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))[here.rank :: here.size]
    return (network(x) - x[:, :2]).pow(2).mean()
train(stage, network, adamw([(network, stage.lr)]), loss_of, Path(sys.argv[1]))
"""


def test_two_processes_take_the_steps_of_one(tmp_path):
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    for done in (warm.run([file, tmp_path / "one"]), *warm.run_together([file, tmp_path / "two"])):
        assert done.returncode == 0, done.stderr
    one, two = (torch.load(tmp_path / name / "tiny.pt", weights_only=True)["network"] for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-5, atol=1e-6)
    assert read_losses(tmp_path / "one" / "tiny.jsonl") == pytest.approx(
        read_losses(tmp_path / "two" / "tiny.jsonl"), abs=1e-4
    )
