"""Adapters of peft that are not W x + scale B A x on the checkpoint's weights are refused by name; the others load."""

import json

import pytest
import torch

from qwen2_audio import lora
from qwen2_audio.errors import WeightsError
from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration

NO_PLAIN_LORA = [
    {"init_lora_weights": "pissa"},
    {"init_lora_weights": "pissa_niter_16"},
    {"init_lora_weights": "PiSSA"},
    {"init_lora_weights": "olora"},
    {"init_lora_weights": "corda"},
    {"init_lora_weights": "lora_ga"},
    {"init_lora_weights": "loftq"},
    {"init_lora_weights": "newer_than_this_test"},
    {"alora_invocation_tokens": [5, 6]},
    {"use_qalora": True},
    {"use_bdlora": {"match_strict": True}},
    {"kasa_config": {"beta": 1e-4}},
    {"arrow_config": {"top_k": 3}},
    {"trainable_token_indices": [1]},
    {"target_parameters": ["experts.gate_up_proj"]},
    {"layer_replication": [[0, 2]]},
    {"lora_bias": True},
    {"a_key_newer_than_this_test": 1},
]


@pytest.fixture
def adapter(tiny_checkpoint, tmp_path):
    """The folder of an adapter that says something, and the logits it gives."""
    model = Qwen2AudioForConditionalGeneration.from_pretrained(tiny_checkpoint)
    lora.inject(model, lora.LoraConfig(rank=2))
    for module in lora.adapted(model).values():
        torch.nn.init.ones_(module.lora_B.weight)
    lora.save_adapter(model, tmp_path, "base")
    return tmp_path, logits(model)


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.arange(5, 15)[None], use_cache=False).logits


def change(folder, values):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("values", NO_PLAIN_LORA, ids=lambda values: "-".join(map(str, *values.items())))
def test_it_is_refused_by_name(adapter, tiny_checkpoint, values):
    folder, _ = adapter
    change(folder, values)
    model = Qwen2AudioForConditionalGeneration.from_pretrained(tiny_checkpoint)
    with pytest.raises(WeightsError, match=next(iter(values))):
        lora.attach(model, folder)
    assert lora.adapted(model) == {}


@pytest.mark.parametrize("how", [True, False, "gaussian", "eva", "orthogonal", "mica"])
def test_an_initialisation_that_leaves_the_base_alone_is_read(adapter, tiny_checkpoint, how):
    folder, expected = adapter
    change(folder, {"init_lora_weights": how})
    model = Qwen2AudioForConditionalGeneration.from_pretrained(tiny_checkpoint)
    lora.attach(model, folder)
    assert torch.equal(logits(model), expected)


def test_every_default_of_the_installed_peft_is_read(adapter, tiny_checkpoint):
    peft = pytest.importorskip("peft")
    folder, expected = adapter
    before = json.loads((folder / "adapter_config.json").read_text())
    defaults = peft.LoraConfig(target_modules="q_proj").to_dict()
    kept = ("r", "lora_alpha", "peft_type", "target_modules")
    change(folder, {**defaults, **{key: before[key] for key in kept}})
    model = Qwen2AudioForConditionalGeneration.from_pretrained(tiny_checkpoint)
    lora.attach(model, folder)
    assert torch.equal(logits(model), expected)
