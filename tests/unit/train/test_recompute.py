"""Gradient checkpointing: the same numbers, less kept."""

import pytest
import torch

from qwen2_audio.model.recompute import recompute_layers, recomputed_layers
from qwen2_audio.train import optim, sft
from qwen2_audio.train.feed import Position, steps_of_data
from qwen2_audio.train.loss import predict, token_losses
from qwen2_audio.train.start import set_up


def step(make, *, checkpointing, **options):
    """Loss, gradients by name, and the bytes that were kept for the backward pass."""
    task = sft.task_of(set_up(make(data={"batch_size": 6}, **options)))
    torch.manual_seed(0)
    optim.prepare(task.model, task.config)
    optim.training_mode(task.model, task.config)
    if checkpointing:
        recompute_layers(task.model)
    batch = next(steps_of_data(task.train, Position(0, 0), 1)).batches[0]
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(1)  # of the dropout
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = token_losses(predict(task.model, batch.tensors))
        loss.backward()
    parameters = {p.untyped_storage().data_ptr() for p in task.model.parameters()}
    kept_bytes = sum(size for place, size in kept.items() if place not in parameters)
    return loss.detach(), {name: p.grad for name, p in optim.trained(task.model).items()}, kept_bytes


@pytest.mark.parametrize("options", [{"method": "full"}, {"method": "lora", "lora": {"dropout": 0.2}}])
def test_the_loss_and_the_gradients_are_the_same_and_less_is_kept(make, options):
    loss, gradients, kept = step(make, checkpointing=False, **options)
    again, found, less = step(make, checkpointing=True, **options)
    assert torch.equal(loss, again)
    assert found.keys() == gradients.keys()
    assert all(torch.equal(found[name], gradients[name]) for name in found)
    assert less < kept / 3


def test_every_layer_of_both_parts_is_among_them(make):
    model = set_up(make()).model
    assert recomputed_layers(model) == [*model.audio_tower.layers, *model.language_model.model.layers]


def test_a_run_with_it_is_the_run_without(make, tmp_path):
    from safetensors.torch import load_file

    results = []
    for checkpointing in (False, True):
        config = make(steps=3, gradient_checkpointing=checkpointing, output=str(tmp_path / str(checkpointing)))
        results.append(load_file(sft.run(config) / "model.safetensors"))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_it_is_switched_on_by_the_config(make, monkeypatch):
    from qwen2_audio.model import recompute

    seen = []
    monkeypatch.setattr(recompute, "recompute_layers", seen.append)
    sft.run(make(steps=1, gradient_checkpointing=True))
    assert len(seen) == 1
