"""Two processes under torchrun, on the CPU with gloo, against one: the same run."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qwen2_audio.distributed.process_group import Processes, join
from qwen2_audio.errors import ConfigError
from qwen2_audio.train import checkpoint, sft
from qwen2_audio.train.feed import Position, Source, check_shares, dummy_batch, steps_of_data, with_a_clip
from qwen2_audio.train.metrics import read

# Run by torchrun: one training after the other, each as its config says; argv: sft|dpo:FILE:STEPS BEFORE THE POWER GOES
PROGRAM = """
import sys, torch
torch.set_num_threads(1)
from qwen2_audio.train import dpo, loop, sft
from qwen2_audio.train.config import TrainConfig
whole = loop.train_step
for order in sys.argv[1:]:
    kind, path, cut = order.split(":")
    def step(task, optimiser, data, number, total):
        if number == int(cut):
            raise InterruptedError
        return whole(task, optimiser, data, number, total)
    loop.train_step = step
    try:
        {"sft": sft, "dpo": dpo}[kind].run(TrainConfig.from_file(path))
    except InterruptedError:
        pass
"""


def two_processes(*orders, folder, program=PROGRAM):
    file = folder / "program.py"
    file.write_text(program)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(file)]
    return subprocess.run([*launcher, *orders], capture_output=True, text=True, timeout=280)


@pytest.fixture
def write(tmp_path, tiny_checkpoint, rows):
    """write("name", parallel="ddp", ...) -> a TOML file of six steps; a batch of the rows without clips is among
    those of an epoch, and one of rows that cannot be used."""
    text = {"messages": [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "rain"}]}
    with rows.open("a") as file:
        for answer in ("rain", "thunder"):
            text["messages"][1]["content"] = answer
            file.write(json.dumps({**text, "rejected_response": "a cat"}) + "\n")
        file.write("{broken\n")

    def toml(name, parallel="none", method="full", **more):
        table = {
            "model": str(tiny_checkpoint), "output": str(tmp_path / name), "steps": 6, "accumulate": 2, "device": "cpu",
            "parallel": parallel, "method": method, "parts": ["encoder", "projector", "language_model"],
            "checkpoint_every": 2, "eval_every": 3, **more,
        }  # fmt: skip
        lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
        lines += ["[data]", f"train = {json.dumps(str(rows))}", f"eval = {json.dumps(str(rows))}", "batch_size = 1"]
        lines += ["[optim]", "learning_rate = 3e-3", "warmup_steps = 2", "weight_decay = 0.01"]
        path = tmp_path / f"{name}.toml"
        path.write_text("\n".join(lines) + "\n")
        return path

    return toml


def numbers(folder):
    lines = read(Path(folder) / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k not in ("rate", "seconds")} for line in lines]


def assert_close(found, expected):
    assert [set(line) for line in found] == [set(line) for line in expected]
    for one, other in zip(found, expected, strict=True):
        for name, value in one.items():
            assert value == pytest.approx(other[name], abs=1e-5, rel=1e-4 if "norm" in name else 1e-5), (name, one)


def tensors(folder):
    return load_file(next(Path(folder).glob("*.safetensors")))


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_are_one_and_a_resumed_run_the_uninterrupted_one(write, tmp_path, parallel):
    """Full SFT, LoRA and DPO of both methods in one start of the two: loss of every step and evaluation, the result,
    the report; a cut run goes on bit for bit, also with one process where two began."""
    checkpointing = {"gradient_checkpointing": parallel == "fsdp"}
    orders = []
    for kind, method in (("sft", "full"), ("sft", "lora"), ("dpo", "lora"), ("dpo", "full")):
        path = write(f"{kind}-{method}-two", parallel, method, **checkpointing)
        orders.append(f"{kind}:{path}:-1")
    cut = write("cut", parallel, **checkpointing)
    moved = write("moved", parallel, **checkpointing)
    orders += [f"sft:{cut}:5", f"sft:{cut}:-1", f"sft:{moved}:3"]
    done = two_processes(*orders, folder=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    one = subprocess.run(
        [sys.executable, tmp_path / "program.py"]
        + [f"{kind}:{write(f'{kind}-{m}-one', method=m)}:-1" for kind in ("sft", "dpo") for m in ("full", "lora")]
        + [f"sft:{write('moved')}:-1"],
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert one.returncode == 0, one.stderr[-3000:]
    for kind in ("sft", "dpo"):
        for method in ("full", "lora"):
            name = tmp_path / f"{kind}-{method}"
            assert_close(numbers(f"{name}-two"), numbers(f"{name}-one"))
            for result in ("final", "best"):
                found, expected = tensors(Path(f"{name}-two") / result), tensors(Path(f"{name}-one") / result)
                assert found.keys() == expected.keys()
                for key in found:
                    torch.testing.assert_close(found[key], expected[key], rtol=1e-3, atol=2e-4, msg=f"{name} {key}")
    assert numbers(tmp_path / "cut") == numbers(tmp_path / "sft-full-two")
    whole, again = tensors(tmp_path / "sft-full-two" / "final"), tensors(tmp_path / "cut" / "final")
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    assert_close(numbers(tmp_path / "moved"), numbers(tmp_path / "sft-full-one"))
    report = (tmp_path / "sft-full-two" / "quarantine.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in report] == [9]
    config = json.loads((tmp_path / "sft-full-two" / "final" / "config.json").read_text())
    assert config["architectures"] == ["Qwen2AudioForConditionalGeneration"]
    assert "going on after step 4 of 6" in done.stderr


def test_a_loss_that_is_not_a_number_ends_all_processes(write, tmp_path):
    program = PROGRAM.replace(
        "whole = loop.train_step\n",
        "whole = loop.train_step\nloss = sft.token_losses\n"
        "sft.token_losses = lambda p: loss(p) * (float('nan') if 'RANK' in __import__('os').environ and "
        "__import__('os').environ['RANK'] == '1' else 1)\n",
    )
    done = two_processes(f"sft:{write('nan', 'ddp')}:-1", folder=tmp_path, program=program)
    assert done.returncode != 0
    assert re.search(r"The loss is nan in step \d, whose rows are on line\(s\) \d", done.stderr)
    assert not (tmp_path / "nan" / "final").exists()


# -- what one process can show


def source(sizes):
    """Epochs of micro-batches called (epoch, place); those of size 0 are bad."""

    def read(plan, epoch):
        yield from (None if sizes[rows[0]] == 0 else (epoch, rows[0]) for rows in plan)

    return Source(lambda epoch: [[i] for i in range(len(sizes))], read)


START = Position(0, 0)


def test_each_process_takes_its_share_of_the_same_steps():
    def take(rank, size, start=START):
        data = steps_of_data(source([1, 1, 0, 1, 1]), start, 4, rank=rank, size=size)
        return [(step.batches, step.after, step.empty) for step, _ in zip(data, range(3), strict=False)]

    alone, first, second = take(0, 1), take(0, 2), take(1, 2)
    assert alone[0] == ([(0, 0), (0, 1), (0, 3)], Position(0, 4), 1)
    assert alone[1] == ([(0, 4), (1, 0), (1, 1)], Position(1, 3), 1)
    for whole, one, other in zip(alone, first, second, strict=True):
        assert sorted(whole[0]) == sorted(one[0] + other[0])
        assert whole[1] == one[1] == other[1]
        assert whole[2] == one[2] + other[2]
    assert take(1, 2, alone[0][1])[0] == second[1]  # a resumed run goes on with the same shares


def test_silence_after_everything_else_changes_no_loss(make):
    from qwen2_audio.train.loss import predict, token_losses
    from qwen2_audio.train.start import set_up

    model = set_up(make()).model
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
    batch = {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": torch.where(ids > 6, ids, -100)}
    heard = with_a_clip(batch, model.config.audio_token_index, 128)
    assert heard["input_ids"].shape == (2, 5)
    one, other = token_losses(predict(model, batch)), token_losses(predict(model, heard))
    torch.testing.assert_close(one, other)
    other.backward()
    assert model.audio_tower.conv1.weight.grad is not None
    nothing = with_a_clip(dummy_batch().tensors, model.config.audio_token_index, 128)
    assert token_losses(predict(model, nothing)) == 0


def test_steps_must_divide_among_the_processes():
    check_shares(4, Processes(0, 2, "ddp"))
    with pytest.raises(ConfigError, match=r"accumulate is 3, and 2 processes share .* expected a multiple of 2"):
        check_shares(3, Processes(0, 2, "ddp"))


def test_how_it_was_started_must_fit_the_config(monkeypatch, make):
    with pytest.raises(ConfigError, match=r"parallel is 'ddp', which needs several processes; start them with 'torchr"):
        sft.run(make(parallel="ddp"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"2 processes were started, and parallel is 'none'"):
        join("none", torch.device("cpu"))


def test_processes_that_see_different_checkpoints_are_stopped(monkeypatch, tmp_path):
    monkeypatch.setattr(Processes, "gather", lambda self, value: [value, None])
    with pytest.raises(ConfigError, match="do not all see the same checkpoints"):
        checkpoint.check_seen_by_all(tmp_path / "step-00000002", tmp_path, Processes(0, 2, "ddp"))


def test_packed_moments_and_fsdp_are_refused_together(make):
    with pytest.raises(ConfigError, match=r"optim.kind is 'adamw8bit' and parallel is 'fsdp'"):
        make(parallel="fsdp", optim={"kind": "adamw8bit"})
