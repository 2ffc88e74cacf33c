"""The loop on a tiny random checkpoint: losses fall, splits do not matter, a bad number stops it."""

import json
import math
import os

import pytest
import torch

from qwen2_audio import lora
from qwen2_audio.errors import PromptError, TrainingError
from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration
from qwen2_audio.train import dpo, loop, optim, sft
from qwen2_audio.train.feed import Position, StepData, steps_of_data
from qwen2_audio.train.metrics import read
from qwen2_audio.train.start import set_up

# Where the CPU has no instructions for bfloat16, a run says so.
slow_bfloat16 = pytest.mark.filterwarnings("ignore:precision is 'bfloat16':UserWarning")


def losses(config):
    return [line["loss"] for line in read(loop.Path(config.output) / "metrics.jsonl") if "loss" in line]


@pytest.mark.picture
def test_the_loss_falls_and_the_result_loads(make):
    config = make(steps=40, data={"eval": "", "batch_size": 6})
    result = sft.run(config)
    seen = losses(config)
    assert len(seen) == 40
    assert seen[-1] < seen[0] / 3
    Qwen2AudioForConditionalGeneration.from_pretrained(result)
    assert (result.parent / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_lora_gives_an_adapter(make, tiny_checkpoint):
    config = make(steps=30, method="lora", optim={"learning_rate": 1e-2}, data={"batch_size": 6})
    result = sft.run(config)
    seen = losses(config)
    assert seen[-1] < seen[0] * 0.7
    model = Qwen2AudioForConditionalGeneration.from_pretrained(tiny_checkpoint)
    assert len(lora.attach(model, result)) == 2 * 6 + 1 + 2 * 7
    assert sorted(path.name for path in result.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


@pytest.mark.parametrize("part", ["encoder", "projector", "language_model"])
def test_only_the_parts_that_are_named_change(make, part):
    config = make(steps=1, parts=[part])
    task = sft.task_of(set_up(config))
    before = {name: p.clone() for name, p in task.model.named_parameters()}
    loop.run(task)
    changed = {name for name, p in task.model.named_parameters() if not torch.equal(p, before[name])}
    prefix = {"encoder": "audio_tower.", "projector": "multi_modal_projector.", "language_model": "language_model."}
    assert changed
    assert all(name.startswith(prefix[part]) for name in changed)
    assert "audio_tower.embed_positions.weight" not in changed


def gradients(task, batches):
    """One step's loss and gradients, as the optimiser sees them."""

    class Recorder(torch.optim.SGD):
        def step(self):
            self.seen = [p.grad.clone() for p in self.param_groups[0]["params"]]

    parameters = list(optim.trained(task.model).values())
    recorder = Recorder(parameters, lr=0.1)
    numbers = loop.train_step(task, recorder, StepData(batches, Position(0, 0)), 0, 1)
    return numbers, recorder.seen


def test_how_a_step_is_split_into_micro_batches_does_not_matter(make):
    results = []
    for size in (6, 3, 2, 1):
        task = sft.task_of(set_up(make(data={"batch_size": size}, optim={"clip_norm": 0.0})))
        optim.prepare(task.model, task.config)
        step = next(steps_of_data(task.train, Position(0, 0), 6 // size))
        assert len(step.batches) == 6 // size
        results.append(gradients(task, step.batches))
    (whole, expected), *others = results
    for numbers, found in others:
        assert numbers["count"] == whole["count"]
        assert numbers["loss"] == pytest.approx(whole["loss"], rel=1e-5)
        for one, other in zip(expected, found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_a_loss_that_is_not_a_number_names_the_rows_and_changes_nothing(make):
    task = sft.task_of(set_up(make(steps=3, data={"batch_size": 2})))
    losses_of, calls = task.objective.losses, []

    def broken(model, batch):
        calls.append(1)
        loss, extras = losses_of(model, batch)
        return (loss * math.nan if len(calls) == 2 else loss), extras

    task.objective.losses = broken
    with pytest.raises(TrainingError, match=r"The loss is nan in step 2, whose rows are on line\(s\) \d, \d of the"):
        loop.run(task)
    assert all(torch.isfinite(p).all() for p in task.model.parameters())


def test_a_gradient_that_is_not_a_number_is_refused_too(make):
    task = sft.task_of(set_up(make(steps=1)))
    losses_of = task.objective.losses

    def broken(model, batch):
        loss, extras = losses_of(model, batch)
        return loss + 0 * torch.sqrt(model.language_model.model.norm.weight.sum() * 0), extras

    task.objective.losses = broken
    before = task.model.language_model.model.norm.weight.clone()
    with pytest.raises(TrainingError, match=r"The gradient's norm is nan in step 1"):
        loop.run(task)
    assert torch.equal(task.model.language_model.model.norm.weight, before)


def test_evaluation_during_training_keeps_the_best(make, rows):
    config = make(steps=6, eval_every=2, data={"eval": str(rows)})
    sft.run(config)
    lines = read(loop.Path(config.output) / "metrics.jsonl")
    evaluated = [(line["step"], line["eval_loss"]) for line in lines if "eval_loss" in line]
    assert [step for step, _ in evaluated] == [2, 4, 6]
    assert (loop.Path(config.output) / "best" / "model.safetensors").is_file()


def test_a_bad_row_is_reported_and_training_goes_on(make, rows):
    with rows.open("a") as file:
        file.write("{broken\n")
    config = make(steps=4, data={"batch_size": 2})
    sft.run(config)
    assert len(losses(config)) == 4
    (entry,) = (loop.Path(config.output) / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(entry)["line"] == 7


def test_processes_that_read_ahead_change_nothing(make, tmp_path):
    seen = []
    for workers in (0, 1):
        config = make(steps=4, output=str(tmp_path / str(workers)), data={"workers": workers})
        sft.run(config)
        seen.append(losses(config))
    assert seen[0] == seen[1]


@slow_bfloat16
def test_bf16_autocast_trains_an_fp32_model(make):
    task = sft.task_of(set_up(make(steps=4, precision="bfloat16", data={"batch_size": 6})))
    assert task.autocast
    loop.run(task)
    assert task.model.dtype == torch.float32
    assert losses(task.config)[-1] < losses(task.config)[0]


@slow_bfloat16
def test_under_bf16_lora_the_base_is_bf16_and_the_adapter_fp32(make):
    task = sft.task_of(set_up(make(steps=2, precision="bfloat16", method="lora")))
    loop.run(task)
    assert task.model.dtype == torch.bfloat16
    assert {p.dtype for p in optim.trained(task.model).values()} == {torch.float32}


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("length_normalised", [False, True])
def test_dpo_begins_at_log_2_and_widens_the_margin(make, method, length_normalised):
    rate = 1e-2 if method == "lora" else 1e-3
    config = make(
        steps=12, method=method, optim={"learning_rate": rate}, data={"batch_size": 6},
        dpo={"beta": 0.5, "length_normalised": length_normalised}, lora={"dropout": 0.0},
    )  # fmt: skip
    dpo.run(config)
    lines = read(loop.Path(config.output) / "metrics.jsonl")
    assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert lines[0]["margin"] == 0
    assert lines[-1]["loss"] < 0.6
    assert lines[-1]["accuracy"] == 1
    assert lines[-1]["margin"] == pytest.approx(lines[-1]["reward_chosen"] - lines[-1]["reward_rejected"], abs=1e-5)


def test_the_adapter_is_on_again_after_the_reference(make):
    task = dpo.task_of(set_up(make(method="lora", lora={"dropout": 0.3})))
    optim.prepare(task.model, task.config)
    optim.training_mode(task.model, task.config)
    batch = next(steps_of_data(task.train, Position(0, 0), 1)).batches[0]
    task.objective.losses(task.model, batch.tensors)
    modules = lora.adapted(task.model).values()
    assert all(module.enabled and module.training for module in modules)


def test_evaluation_that_can_use_no_row_is_said_before_a_step_is_done(make, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"messages": [{"role": "user", "content": "<audio>"}, {"role": "assistant", "content": "a"}]}\n')
    config = make(steps=3, data={"eval": str(bad)})
    with pytest.raises(PromptError, match=r"No row of .*bad\.jsonl could be used"):
        sft.run(config)
    assert not losses(config)


def test_what_was_trained_is_kept_where_evaluation_fails_at_the_end(make, rows, monkeypatch):
    config = make(steps=3, data={"eval": str(rows)})

    def failing(task):
        raise PromptError("The clips are gone.")

    with monkeypatch.context() as broken:
        broken.setattr(loop, "evaluate", failing)
        with pytest.raises(PromptError, match="The clips are gone"):
            sft.run(config)
    assert len(losses(config)) == 3
    sft.run(config)  # goes on from the end
    assert len(losses(config)) == 3


@pytest.mark.parametrize("parts", [["projector"], ["encoder"]])
def test_rows_without_a_clip_teach_the_ears_nothing_and_are_no_error(make, rows, parts):
    config = make(steps=6, parts=parts, data={"batch_size": 1})  # one of the six rows has no clip
    sft.run(config)
    assert len(losses(config)) == 6


def test_more_compiled_convolutions_are_kept_unless_told_otherwise(make, monkeypatch):
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    set_up(make())
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "8192"
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    set_up(make())
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "7"
