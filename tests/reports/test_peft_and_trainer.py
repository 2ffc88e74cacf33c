"""peft's wrapper for language models (task_type="CAUSAL_LM") and transformers' Trainer, on our model."""

import pytest
import torch

from kit.tiny import tiny_model
from kit.twins import batch
from qwen2_audio import Qwen2AudioForConditionalGeneration, lora
from qwen2_audio.errors import ConfigError

IDS = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture
def peft():
    return pytest.importorskip("peft")


def test_lora_as_a_causal_language_model(peft, tmp_path):
    model = tiny_model(noise=0.2)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    wrapped = peft.get_peft_model(model, config)
    loss = wrapped(**batch(), labels=batch()["input_ids"]).loss
    loss.backward()
    trained = [name for name, p in wrapped.named_parameters() if p.grad is not None]
    assert trained
    assert all("lora_" in name for name in trained)
    wrapped.eval()
    answer = wrapped.generate(**batch(), max_new_tokens=4, do_sample=False)
    with wrapped.disable_adapter():
        assert not torch.equal(wrapped.generate(**batch(), max_new_tokens=4, do_sample=False), answer)
    # Saved, and read by us, it answers the same.
    wrapped.save_pretrained(tmp_path)
    ours = tiny_model(noise=0.2)
    lora.attach(ours, tmp_path)
    assert torch.equal(ours.generate(**batch(), max_new_tokens=4, do_sample=False), answer)


def test_checkpointing_with_a_frozen_base(peft):
    model = tiny_model(noise=0.2)
    peft.prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": True})
    wrapped = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"])).train()
    wrapped(**batch(), labels=batch()["input_ids"]).loss.backward()
    adapters = [p for name, p in wrapped.named_parameters() if "lora_B" in name]
    assert len(adapters) == 4  # two layers a side
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in adapters)


@pytest.mark.filterwarnings("ignore:.*bos_token_id:UserWarning")
def test_prompts_that_would_be_left_out_are_refused(peft):
    prompts = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    wrapped = peft.get_peft_model(tiny_model(), prompts)
    assert wrapped(input_ids=IDS, attention_mask=torch.ones_like(IDS), labels=IDS).loss > 0
    with pytest.raises(ConfigError, match="prepare_inputs_for_generation was replaced, by peft's prompt or prefix"):
        wrapped.generate(input_ids=IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=2)
    prefix = peft.get_peft_model(tiny_model(), peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    with pytest.raises(ConfigError, match="past_key_values is a DynamicCache; expected a KVCache"):
        prefix(input_ids=IDS, attention_mask=torch.ones_like(IDS))


def test_a_subclass_that_prepares_its_own_inputs_is_told():
    class Mine(Qwen2AudioForConditionalGeneration):
        def prepare_inputs_for_generation(self, *args, **inputs):
            return {}

    with pytest.raises(ConfigError, match="generate\\(\\) does not call it"):
        Mine(tiny_model().config).generate(IDS, max_new_tokens=2)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_a_trainer_trains_it_evaluates_it_and_predicts(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(1, 60, (7,), generator=generator) for _ in range(8)]
    rows = [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": row} for row in ids]
    options = {"report_to": [], "use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1}
    arguments = transformers.TrainingArguments(
        str(tmp_path), max_steps=6, learning_rate=1e-2, gradient_checkpointing=True, **options
    )
    model = tiny_model(noise=0.2)
    trainer = transformers.Trainer(model, arguments, train_dataset=rows, eval_dataset=rows)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.state.total_flos > 0  # from num_parameters
    assert trainer.evaluate()["eval_loss"] < before - 0.2
    assert trainer.predict(rows).predictions[0].shape == (8, 7, 64)


# A loop of one's own


@torch.no_grad()
def test_a_loop_with_prepare_inputs_for_generation():
    model = tiny_model(noise=0.2)
    inputs = batch()
    ids, mask = inputs.pop("input_ids"), inputs.pop("attention_mask")
    expected = model.generate(ids, attention_mask=mask, **inputs, max_new_tokens=4, do_sample=False, eos_token_id=-1)
    cache = None
    for step in range(4):
        prepared = model.prepare_inputs_for_generation(
            ids, past_key_values=cache, attention_mask=mask, is_first_iteration=step == 0, **inputs
        )
        assert ("input_features" in prepared) == (step == 0)
        out = model(**prepared, use_cache=True)
        cache = out.past_key_values
        ids = torch.cat((ids, out.logits[:, -1:].argmax(-1)), 1)
        mask = torch.cat((mask, mask.new_ones(2, 1)), 1)
    assert torch.equal(ids, expected)


def test_what_it_prepares():
    model = tiny_model()
    ids, embeds = torch.arange(12).view(2, 6), torch.randn(2, 6, 32)
    with torch.no_grad():
        cache = model(ids[:, :4]).past_key_values
    positions = torch.arange(6)[None].expand(2, -1)
    out = model.prepare_inputs_for_generation(ids, past_key_values=cache, position_ids=positions, my_option=3)
    assert torch.equal(out["input_ids"], ids[:, 4:])
    assert torch.equal(out["position_ids"], positions[:, 4:])
    assert out["my_option"] == 3
    first = model.prepare_inputs_for_generation(ids, inputs_embeds=embeds, is_first_iteration=True)
    assert first["input_ids"] is None
    assert first["inputs_embeds"] is embeds
    assert torch.equal(model.prepare_inputs_for_generation(ids, next_sequence_length=1)["input_ids"], ids[:, -1:])
