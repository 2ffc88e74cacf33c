"""Two processes as torchrun starts them, on the CPU with gloo, against one: the same run."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kit import warm
from kit.rows import write_rows
from qwen2_audio.distributed.process_group import Processes, join
from qwen2_audio.errors import ConfigError
from qwen2_audio.train import checkpoint, sft
from qwen2_audio.train.feed import Position, Source, check_shares, dummy_batch, steps_of_data, with_a_clip
from qwen2_audio.train.metrics import read

# One training after the other, each as its config says; argv: sft|dpo:FILE:STEPS BEFORE THE POWER GOES
PROGRAM = """
import sys, torch
torch.set_num_threads(1)
from qwen2_audio.train import dpo, loop, sft
from qwen2_audio.train.config import TrainConfig
whole = loop.train_step
loop.draw = lambda output: output  # no pictures
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


@pytest.fixture(scope="module")
def write(tmp_path_factory, tiny_checkpoint):
    """write("name", parallel="ddp", ...) -> a TOML file of six steps, in one folder with the outputs; a batch of the
    rows without clips is among those of an epoch, and one of rows that cannot be used."""
    folder = tmp_path_factory.mktemp("processes")
    rows = write_rows(folder)
    text = {"messages": [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "rain"}]}
    with rows.open("a") as file:
        for answer in ("rain", "thunder"):
            text["messages"][1]["content"] = answer
            file.write(json.dumps({**text, "rejected_response": "a cat"}) + "\n")
        file.write("{broken\n")

    def toml(name, parallel="none", method="full", **more):
        table = {
            "model": str(tiny_checkpoint), "output": str(folder / name), "steps": 6, "accumulate": 2, "device": "cpu",
            "parallel": parallel, "method": method, "parts": ["encoder", "projector", "language_model"],
            "checkpoint_every": 2, "eval_every": 3, **more,
        }  # fmt: skip
        lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
        lines += ["[data]", f"train = {json.dumps(str(rows))}", f"eval = {json.dumps(str(rows))}", "batch_size = 1"]
        lines += ["[optim]", "learning_rate = 3e-3", "warmup_steps = 2", "weight_decay = 0.01"]
        path = folder / f"{name}.toml"
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


@pytest.fixture(scope="module")
def runs(write):
    """Full SFT, LoRA and DPO of both methods, by two processes in each way to be parallel and by one; a cut run that
    goes on, and one that goes on with one process where two began. Returns their folder, and what process 0 said."""
    orders, alone = [], []
    for parallel in ("ddp", "fsdp"):
        options = {"parallel": parallel, "gradient_checkpointing": parallel == "fsdp"}
        for kind in ("sft", "dpo"):
            for method in ("full", "lora"):
                orders.append(f"{kind}:{write(f'{parallel}-{kind}-{method}', method=method, **options)}:-1")
        cut, moved = write(f"{parallel}-cut", **options), write(f"{parallel}-moved", **options)
        orders += [f"sft:{cut}:5", f"sft:{cut}:-1", f"sft:{moved}:3"]
    first, second = warm.run_together(["-c", PROGRAM, *orders])
    assert first.returncode == second.returncode == 0, first.stderr[-3000:] + second.stderr[-3000:]
    for kind in ("sft", "dpo"):
        for method in ("full", "lora"):
            alone.append(f"{kind}:{write(f'one-{kind}-{method}', method=method)}:-1")
    alone += [f"sft:{write(f'{parallel}-moved')}:-1" for parallel in ("ddp", "fsdp")]
    one = warm.run(["-c", PROGRAM, *alone])
    assert one.returncode == 0, one.stderr[-3000:]
    return cut.parent, first.stderr


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_are_one_and_a_resumed_run_the_uninterrupted_one(runs, parallel):
    """Loss of every step and evaluation, the result, the report; a cut run goes on bit for bit, also with one process
    where two began."""
    folder, stderr = runs
    for name in ("sft-full", "sft-lora", "dpo-full", "dpo-lora"):
        two, one = folder / f"{parallel}-{name}", folder / f"one-{name}"
        assert_close(numbers(two), numbers(one))
        for result in ("final", "best"):
            found, expected = tensors(two / result), tensors(one / result)
            assert found.keys() == expected.keys()
            for key in found:
                torch.testing.assert_close(found[key], expected[key], rtol=1e-3, atol=2e-4, msg=f"{name} {key}")
    assert numbers(folder / f"{parallel}-cut") == numbers(folder / f"{parallel}-sft-full")
    whole, again = tensors(folder / f"{parallel}-sft-full" / "final"), tensors(folder / f"{parallel}-cut" / "final")
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    assert_close(numbers(folder / f"{parallel}-moved"), numbers(folder / "one-sft-full"))
    report = (folder / f"{parallel}-sft-full" / "quarantine.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in report] == [9]
    config = json.loads((folder / f"{parallel}-sft-full" / "final" / "config.json").read_text())
    assert config["architectures"] == ["Qwen2AudioForConditionalGeneration"]
    assert stderr.count("going on after step 4 of 6") == 2  # once in each way to be parallel


def test_a_loss_that_is_not_a_number_ends_all_processes(write):
    program = PROGRAM.replace(
        "whole = loop.train_step\n",
        "whole = loop.train_step\nloss = sft.token_losses\n"
        "sft.token_losses = lambda p: loss(p) * (float('nan') if 'RANK' in __import__('os').environ and "
        "__import__('os').environ['RANK'] == '1' else 1)\n",
    )
    config = write("nan", "ddp")
    first, second = warm.run_together(["-c", program, f"sft:{config}:-1"])
    assert first.returncode != 0 and second.returncode != 0
    assert re.search(r"The loss is nan in step \d, whose rows are on line\(s\) \d", second.stderr)
    assert not (config.parent / "nan" / "final").exists()


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
