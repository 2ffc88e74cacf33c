"""QLoRA: a frozen base in 8 or 4 bits, an fp32 adapter beside it."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from qwen2_audio import lora
from qwen2_audio.errors import ConfigError
from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration
from qwen2_audio.quantize.linear import QuantizedLinear
from qwen2_audio.train import dpo, loop, optim, sft
from qwen2_audio.train.feed import Position, steps_of_data
from qwen2_audio.train.loss import predict, token_losses
from qwen2_audio.train.metrics import read
from qwen2_audio.train.start import set_up


def logits(task):
    batch = next(steps_of_data(task.train, Position(0, 0), 1)).batches[0]
    with torch.no_grad():
        return predict(task.model.eval(), batch.tensors).logits


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_it_begins_as_the_quantised_base_and_learns(make, scheme):
    config = make(steps=25, method="lora", quantize=scheme, optim={"learning_rate": 1e-2}, data={"batch_size": 6})
    task = sft.task_of(set_up(config))
    base = logits(task)
    optim.prepare(task.model, config)
    modules = lora.adapted(task.model)
    assert len(modules) == 2 * 6 + 1 + 2 * 7
    assert all(isinstance(module, QuantizedLinear) for module in modules.values())
    torch.testing.assert_close(logits(task), base, rtol=1e-2, atol=1e-2 * float(base.abs().max()))
    with lora.disabled(task.model):
        off = logits(task)
    assert torch.equal(logits(task), off)
    codes = {path: module.weight_codes.clone() for path, module in modules.items()}
    loop.run(sft.task_of(set_up(config)))
    seen = [line["loss"] for line in read(loop.Path(config.output) / "metrics.jsonl") if "loss" in line]
    assert seen[-1] < seen[0] * 0.75
    assert all(torch.equal(modules[path].weight_codes, code) for path, code in codes.items())


def test_only_the_adapter_is_trained_and_kept(make):
    result = sft.run(make(steps=2, method="lora", quantize="int4"))
    adapter = load_file(result / lora.WEIGHTS_NAME)
    assert len(adapter) == 2 * (2 * 6 + 1 + 2 * 7)
    state = torch.load(next((result.parent / "checkpoints").glob("*/state.pt")), weights_only=True)
    assert all("lora_" in name for name in state["parameters"])


def test_its_gradients_are_those_beside_the_dequantised_weights(make):
    """The adapter's gradient, the base being exact fp32 copies of the quantised weights in one of the two."""
    task = sft.task_of(set_up(make(method="lora", quantize="int8", data={"batch_size": 6})))
    batch = next(steps_of_data(task.train, Position(0, 0), 1)).batches[0].tensors
    plain = Qwen2AudioForConditionalGeneration.from_pretrained(task.config.model, dtype=torch.float32)
    for path, module in task.model.named_modules():
        if isinstance(module, QuantizedLinear):
            owner = plain.get_submodule(path)
            owner.weight.data = module.dequantize()
    plain.language_model.model.embed_tokens.weight.data = task.model.get_input_embeddings()(torch.arange(512)).detach()
    for model in (task.model, plain):
        torch.manual_seed(0)
        optim.prepare(model, task.config)
        generator = torch.Generator().manual_seed(5)
        for module in lora.adapted(model).values():
            module.lora_B.weight.data = torch.randn(module.lora_B.weight.shape, generator=generator) * 0.02
        model.get_input_embeddings().register_forward_hook(lambda *given: given[-1].requires_grad_())  # exact weights
        model.audio_tower.conv1.weight.requires_grad_()
        token_losses(predict(model, batch)).backward()
    for path, module in lora.adapted(task.model).items():
        other = plain.get_submodule(path)
        for name in ("lora_A", "lora_B"):
            mine, theirs = getattr(module, name).weight.grad, getattr(other, name).weight.grad
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()), msg=path)


def test_dpo_takes_the_quantised_base_as_its_reference(make):
    config = make(steps=8, method="lora", quantize="int8", optim={"learning_rate": 1e-2}, data={"batch_size": 6})
    dpo.run(config)
    lines = read(loop.Path(config.output) / "metrics.jsonl")
    assert lines[0]["loss"] == pytest.approx(0.693147, abs=1e-6)
    assert lines[-1]["loss"] < 0.65


def test_the_adapter_goes_into_the_plain_checkpoint_but_not_into_the_quantised_one(make, tiny_checkpoint):
    result = sft.run(make(steps=2, method="lora", quantize="int4"))
    plain = Qwen2AudioForConditionalGeneration.from_pretrained(tiny_checkpoint)
    lora.attach(plain, result)
    lora.merge(plain)
    small = Qwen2AudioForConditionalGeneration.from_pretrained(tiny_checkpoint, quantize="int4")
    lora.attach(small, result)
    with pytest.raises(
        ConfigError, match=r"cannot be added to 4- or 8-bit weights; merge it into the plain checkpoint"
    ):
        lora.merge(small)
    assert len(lora.adapted(small)) == 2 * 6 + 1 + 2 * 7


def test_moving_a_model_moves_the_adapter_too(make):
    task = sft.task_of(set_up(make(method="lora", quantize="int8")))
    optim.prepare(task.model, task.config)
    moved = task.model.language_model.to(torch.float64)  # the whole model, being quantised, refuses a cast
    module = next(iter(lora.adapted(moved).values()))
    assert module.lora_A.weight.dtype == torch.float64
    assert module.weight_codes.dtype == torch.uint8


def test_gradient_checkpointing_and_packed_moments_go_with_it(make, tmp_path):
    results = []
    for checkpointing in (False, True):
        config = make(
            steps=3, method="lora", quantize="int4", gradient_checkpointing=checkpointing,
            optim={"kind": "adamw8bit"}, output=str(tmp_path / str(checkpointing)),
        )  # fmt: skip
        results.append(load_file(sft.run(config) / lora.WEIGHTS_NAME))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_what_cannot_work_is_refused(make, tiny_checkpoint, tmp_path):
    with pytest.raises(ConfigError, match=r"quantize is 'int4' and method is 'full', but quantised weights cannot be"):
        make(quantize="int4")
    with pytest.raises(ConfigError, match=r"quantize is 'int4' and parallel is 'fsdp'.* use parallel = 'ddp'"):
        make(quantize="int4", method="lora", parallel="fsdp")
    folder = tmp_path / "small"
    shutil.copytree(tiny_checkpoint, folder)
    Qwen2AudioForConditionalGeneration.from_pretrained(tiny_checkpoint, quantize="int8").save_pretrained(folder)
    with pytest.raises(
        ConfigError, match=r"small is quantised, and such weights cannot be trained; use method = 'lora"
    ):
        sft.run(make(model=str(folder)))
    sft.run(make(model=str(folder), method="lora", steps=1))
