import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from kit.tiny import AUDIO_ID, tiny_model
from qwen2_audio import lora
from qwen2_audio.checkpoint.weights import canonical
from qwen2_audio.errors import ConfigError, WeightsError
from qwen2_audio.lora import LoraConfig
from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration

EVERYWHERE = {"encoder": "q_proj|fc1", "projector": "linear", "language_model": "q_proj|down_proj|lm_head"}


def fresh() -> Qwen2AudioForConditionalGeneration:
    return tiny_model()


def logits(model):
    torch.manual_seed(7)
    ids = torch.tensor([[5, 6] + [AUDIO_ID] * 15 + [7, 8]])
    return model(
        input_ids=ids, input_features=torch.randn(1, 8, 60), feature_attention_mask=torch.ones(1, 60), use_cache=False
    ).logits.detach()


def perturbed(targets=EVERYWHERE, **options):
    """A model with an adapter that says something."""
    model = fresh()
    lora.inject(model, LoraConfig(rank=4, alpha=8, targets=targets, **options))
    for i, module in enumerate(lora.adapted(model).values()):
        torch.manual_seed(i)
        torch.nn.init.normal_(module.lora_B.weight)
    return model


def test_the_adapted_model_begins_as_the_base():
    model = fresh()
    before = logits(model)
    paths = lora.inject(model, LoraConfig(targets=EVERYWHERE))
    assert len(paths) == 2 * 2 + 1 + 2 * 2 + 1
    assert torch.equal(logits(model), before)


def test_only_the_adapter_is_trained_and_the_base_keeps_its_names():
    model = fresh()
    before = {name for name, _ in model.named_parameters()}
    lora.inject(model, LoraConfig(targets={"projector": "linear"}))
    added = {name for name, p in model.named_parameters() if p.requires_grad}
    assert added == {f"multi_modal_projector.linear.lora_{x}.weight" for x in "AB"}
    assert {name for name, _ in model.named_parameters()} - added == before


def test_a_part_that_is_not_named_is_not_touched():
    model = fresh()
    paths = lora.inject(model, LoraConfig(targets={"language_model": "q_proj"}))
    assert paths == [f"language_model.model.layers.{i}.self_attn.q_proj" for i in range(2)]


def test_one_layer_can_be_named():
    model = fresh()
    paths = lora.inject(model, LoraConfig(targets={"encoder": r"layers\.1\.self_attn\.q_proj"}))
    assert paths == ["audio_tower.layers.1.self_attn.q_proj"]


def test_disabled_is_the_base_and_comes_back():
    base = logits(fresh())
    model = perturbed()
    with lora.disabled(model):
        assert torch.equal(logits(model), base)
    assert not torch.allclose(logits(model), base, atol=1e-2)


def test_merged_is_attached():
    model = perturbed()
    attached = logits(model)
    lora.merge(model)
    assert lora.adapted(model) == {}
    assert torch.allclose(logits(model), attached, atol=1e-5)
    assert {n: p.shape for n, p in model.named_parameters()} == {n: p.shape for n, p in fresh().named_parameters()}


def test_dropout_acts_in_training_only():
    model = perturbed(dropout=0.5)
    assert torch.equal(logits(model), logits(model))
    model.train()
    x = torch.ones(1, 16)
    module = model.multi_modal_projector.linear
    assert not torch.equal(module(x), module(x))


def test_an_adapter_goes_to_files_and_comes_back(tmp_path):
    model = perturbed()
    lora.save_adapter(model, tmp_path, "some/base")
    again = fresh()
    assert sorted(lora.attach(again, tmp_path)) == sorted(lora.adapted(model))
    assert torch.equal(logits(again), logits(model))
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (4, 8.0, "some/base")
    keys = set(load_file(tmp_path / "adapter_model.safetensors"))
    head = "base_model.model."
    names = [f"{path}.lora_{which}.weight" for path in lora.adapted(model) for which in "AB"]
    adapters = {rename_as_in_transformers_5(name) for name in names}
    assert keys == {head + name for name in adapters}
    assert head + "model.language_model.layers.0.self_attn.q_proj.lora_A.weight" in keys


def test_the_expression_written_for_peft_matches_the_adapted_modules_only(tmp_path):
    import re

    model = perturbed()
    lora.save_adapter(model, tmp_path, "base")
    expression = json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"]
    names = [name for name, m in fresh().named_modules() if isinstance(m, torch.nn.Linear)]
    assert {name for name in names if re.fullmatch(expression, name)} == set(lora.adapted(model))
    five = {name: rename_as_in_transformers_5(name) for name in names}
    assert {name for name in names if re.fullmatch(expression, five[name])} == set(lora.adapted(model))


def rename_as_in_transformers_5(name):
    if name.startswith("language_model.lm_head"):
        return name.removeprefix("language_model.")
    return "model." + name.replace("language_model.model.", "language_model.")


@pytest.mark.parametrize("infix", ["", ".default"])
def test_both_spellings_of_keys_are_read(tmp_path, infix):
    model = perturbed()
    lora.save_adapter(model, tmp_path, "base")
    file = tmp_path / "adapter_model.safetensors"
    head = "base_model.model."
    five = {key.replace(".weight", f"{infix}.weight"): tensor for key, tensor in load_file(file).items()}
    four = {head + canonical(key.removeprefix(head)): tensor for key, tensor in five.items()}
    assert f"{head}model.language_model.layers.0.self_attn.q_proj.lora_A{infix}.weight" in five
    assert f"{head}language_model.model.layers.0.self_attn.q_proj.lora_A{infix}.weight" in four
    for tensors in (five, four):
        save_file(tensors, file)
        again = fresh()
        lora.attach(again, tmp_path)
        assert torch.equal(logits(again), logits(model))
    save_file(five | {name: tensor.clone() for name, tensor in four.items()}, file)
    with pytest.raises(WeightsError, match=r"has lora_[AB] of \S+ twice, in two spellings"):
        lora.attach(fresh(), tmp_path)


def test_rank_stabilised_scaling_is_read(tmp_path):
    model = perturbed()
    lora.save_adapter(model, tmp_path, "base")
    change(tmp_path, use_rslora=True)
    again = fresh()
    lora.attach(again, tmp_path)
    assert lora.adapted(again)["multi_modal_projector.linear"].scaling == 8 / 2


def change(folder, **values):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("targets", "sentence"),
    [
        ({"language_model": "q_porj"}, r"'q_porj', matches no Linear; there are .*q_proj"),
        ({"language_model": "q_proj("}, r"is not one: "),
        ({"lm": "q_proj"}, r"LoRA knows no part 'lm'; expected encoder, projector, language_model"),
        ({}, r"LoRA has no targets"),
    ],
)
def test_targets_that_cannot_work_are_refused(targets, sentence):
    with pytest.raises(ConfigError, match=sentence):
        lora.inject(fresh(), LoraConfig(targets=targets))


@pytest.mark.parametrize(("options", "sentence"), [({"rank": 0}, "rank is 0"), ({"dropout": 1.0}, "dropout is 1.0")])
def test_numbers_that_cannot_work_are_refused(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        LoraConfig(**options)


def test_a_second_adapter_is_refused(tmp_path):
    model = perturbed()
    lora.save_adapter(model, tmp_path, "base")
    with pytest.raises(ConfigError, match="has an adapter already"):
        lora.inject(model, LoraConfig())
    with pytest.raises(ConfigError, match="has an adapter already"):
        lora.attach(model, tmp_path)
    with pytest.raises(ConfigError, match="no adapter to save"):
        lora.save_adapter(fresh(), tmp_path, "base")


def test_a_tied_head_is_not_adapted():
    model = fresh()
    model.language_model.lm_head.weight = model.language_model.model.embed_tokens.weight
    with pytest.raises(ConfigError, match=r"lm_head shares its weight with the embedding"):
        lora.inject(model, LoraConfig(targets={"language_model": "lm_head"}))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"peft_type": "IA3"}, "does not describe a LoRA adapter"),
        ({"lora_alpha": None}, "does not describe a LoRA adapter"),
        ({"use_dora": True}, "uses use_dora; only plain LoRA can be read"),
        ({"modules_to_save": ["lm_head"]}, "uses modules_to_save"),
        ({"bias": "all"}, "uses bias"),
    ],
)
def test_other_adapters_are_refused(tmp_path, values, sentence):
    lora.save_adapter(perturbed(), tmp_path, "base")
    change(tmp_path, **values)
    with pytest.raises(WeightsError, match=sentence):
        lora.attach(fresh(), tmp_path)


def test_damaged_files_are_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"has no adapter_config.json; an adapter is a folder with"):
        lora.attach(fresh(), tmp_path)
    lora.save_adapter(perturbed(), tmp_path, "base")
    file = tmp_path / "adapter_model.safetensors"
    complete = load_file(file)
    for key, sentence in (
        ("base_model.model.language_model.model.layers.9.self_attn.q_proj.lora_A.weight", "adapts .*layers.9"),
        ("base_model.model.embed.lora_embedding_A", "is no weight of LoRA"),
    ):
        save_file({**complete, key: torch.zeros(4, 32)}, file)
        with pytest.raises(WeightsError, match=sentence):
            lora.attach(fresh(), tmp_path)
    key = "base_model.model.model.multi_modal_projector.linear.lora_A.weight"
    save_file({**complete, key: torch.zeros(4, 5)}, file)
    with pytest.raises(WeightsError, match=r"lora_A \[4, 5\] and lora_B \[32, 4\] for multi_modal_projector.linear"):
        lora.attach(fresh(), tmp_path)
    save_file({k: v for k, v in complete.items() if k != key}, file)
    with pytest.raises(WeightsError, match=r"lacks lora_A or lora_B of multi_modal_projector\.linear"):
        lora.attach(fresh(), tmp_path)
    file.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="is not a whole safetensors file"):
        lora.attach(fresh(), tmp_path)


def test_a_bf16_base_has_an_adapter_in_fp32():
    model = fresh().bfloat16()
    before = logits(model)
    lora.inject(model, LoraConfig(targets=EVERYWHERE))
    assert torch.equal(logits(model), before)
    assert lora.adapted(model)["multi_modal_projector.linear"].lora_A.weight.dtype == torch.float32
    lora.merge(copy.deepcopy(model))
