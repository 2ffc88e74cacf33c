"""Adapter files both ways: peft reads ours into transformers' model, we read peft's; the logits are the same."""

import copy
import json

import pytest
import torch

from qwen2_audio import lora
from qwen2_audio.checkpoint.config import Qwen2AudioConfig
from qwen2_audio.engine.adapters import Adapters
from qwen2_audio.engine.executor.adapter_rows import of_language_model
from qwen2_audio.engine.executor.forward_batch import ForwardBatch
from qwen2_audio.engine.metrics import Stats
from qwen2_audio.engine.settings import EngineSettings
from qwen2_audio.native.paged import storage_for
from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration

peft = pytest.importorskip("peft", reason="peft is not installed")
transformers = pytest.importorskip("transformers")

TARGETS = {"encoder": "q_proj|fc1", "projector": "linear", "language_model": "v_proj|down_proj|lm_head"}
# What people adapt with peft: a list of endings, which reaches into both halves, and an expression.
THEIRS = {
    "endings": ["q_proj", "v_proj", "fc2", "down_proj"],
    "an expression": r".*language_model\..*(q_proj|o_proj|gate_proj)",
    "the projector alone": ["multi_modal_projector.linear"],
}


@pytest.fixture
def pair(random_twins):
    """Fresh copies of the twins: peft changes the model it is given."""
    theirs, twin = random_twins
    ours = Qwen2AudioForConditionalGeneration(Qwen2AudioConfig.from_dict(twin.config.to_dict())).eval()
    ours.load_state_dict(twin.state_dict())
    return copy.deepcopy(theirs), ours


def logits(model, inputs):
    with torch.no_grad():
        return model(**inputs, use_cache=False).logits


def randomise(parameters):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


def test_peft_reads_our_adapter(pair, make_inputs, tmp_path):
    theirs, ours = pair
    inputs = make_inputs([[5, 60, 7], [8, 37, 9]])
    plain = logits(theirs, inputs)
    lora.inject(ours, lora.LoraConfig(rank=4, alpha=6.0, targets=TARGETS))
    randomise(p for module in lora.adapted(ours).values() for p in (module.lora_A.weight, module.lora_B.weight))
    lora.save_adapter(ours, tmp_path, "base")
    adapted = peft.PeftModel.from_pretrained(theirs, tmp_path)
    wrapped = {name for name, module in adapted.named_modules() if isinstance(module, peft.tuners.lora.Linear)}
    assert len(wrapped) == len(lora.adapted(ours)) == 2 * 2 + 1 + 2 * 2 + 1
    found = logits(adapted, inputs)
    valid = inputs["attention_mask"].bool()
    torch.testing.assert_close(found[valid], logits(ours, inputs)[valid], rtol=1e-3, atol=1e-4)
    assert (found - plain)[valid].abs().max() > 0.1


@pytest.mark.parametrize("targets", list(THEIRS))
@pytest.mark.parametrize("scaled_by_root", [False, True])
def test_we_read_pefts_adapter(pair, make_inputs, tmp_path, targets, scaled_by_root):
    theirs, ours = pair
    inputs = make_inputs([[5, 60, 7], [8, 37, 9]])
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=THEIRS[targets], use_rslora=scaled_by_root)
    adapted = peft.get_peft_model(theirs, config).eval()
    randomise(p for name, p in sorted(adapted.named_parameters()) if "lora_" in name)
    adapted.save_pretrained(tmp_path)
    plain = logits(ours, inputs)
    assert lora.attach(ours, tmp_path)
    valid = inputs["attention_mask"].bool()
    expected = logits(adapted, inputs)[valid]
    torch.testing.assert_close(logits(ours, inputs)[valid], expected, rtol=1e-3, atol=1e-4)
    lora.merge(ours)
    torch.testing.assert_close(logits(ours, inputs)[valid], expected, rtol=1e-3, atol=1e-4)
    assert (expected - plain[valid]).abs().max() > 0.1


def test_our_config_has_no_key_that_peft_does_not_know(pair, tmp_path):
    _, ours = pair
    lora.inject(ours, lora.LoraConfig(rank=4, targets=TARGETS))
    lora.save_adapter(ours, tmp_path, "base")
    known = set(peft.LoraConfig().to_dict())
    assert set(json.loads((tmp_path / lora.CONFIG_NAME).read_text())) <= known


def test_adapters_of_peft_by_request(pair, tmp_path):
    """Rows of two adapters and of none, in one packed pass after another: the tokens that peft's models choose."""
    theirs, ours = pair
    ours.set_attn_implementation("sdpa")
    names, rows, steps = ["one", None, "two"], [[5, 6, 7, 8], [9, 4, 3], [2, 11, 12, 13, 14]], 8
    expected = {None: theirs}
    for name, targets in (("one", THEIRS["an expression"]), ("two", ["q_proj", "v_proj", "down_proj"])):
        config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=targets)
        expected[name] = peft.get_peft_model(copy.deepcopy(theirs), config).eval()
        randomise(p for key, p in sorted(expected[name].named_parameters()) if "lora_" in key)
        expected[name].save_pretrained(tmp_path / name)
    pool = Adapters(ours, EngineSettings(lora_folder=tmp_path), Stats())
    adapters = [None if name is None else pool.load(name) for name in names]
    storage, computed, new = storage_for(ours.language_model, 3), [0, 0, 0], [len(row) for row in rows]
    for _ in range(steps):
        ids = torch.tensor([[token for row, count in zip(rows, new, strict=True) for token in row[-count:]]])
        batch = ForwardBatch([[0], [1], [2]], computed, new, [1, 1, 1])
        with torch.no_grad(), of_language_model(ours, adapters, new, batch.num_logits):
            found = batch.run(ours, storage, ids=ids)
        for row, name, said in zip(rows, names, found, strict=True):
            inputs = {"input_ids": torch.tensor([row]), "attention_mask": torch.ones(1, len(row), dtype=torch.int64)}
            wanted = logits(expected[name], inputs)[0, -1]
            torch.testing.assert_close(said, wanted, rtol=1e-3, atol=1e-3)
            row.append(int(wanted.argmax()))
            assert int(said.argmax()) == row[-1], name
        computed, new = [done + count for done, count in zip(computed, new, strict=True)], [1, 1, 1]
    assert len({tuple(row[-steps:]) for row in rows}) == 3
