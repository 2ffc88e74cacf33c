"""The methods that Trainer, peft and users' own code call on a model."""

import copy

import pytest
import torch
from torch import nn

from kit.tiny import tiny_config, tiny_model
from kit.twins import batch, twins
from qwen2_audio import Qwen2AudioEncoder, Qwen2AudioForConditionalGeneration, Qwen2AudioModel, lora
from qwen2_audio.errors import ConfigError

IDS = torch.arange(1, 7)[None]


# Embeddings


@pytest.mark.parametrize("kind", [Qwen2AudioModel, Qwen2AudioForConditionalGeneration])
def test_embeddings_are_read_and_replaced(kind):
    model = kind(tiny_config())
    new = nn.Embedding(64, 32)
    model.set_input_embeddings(new)
    assert model.get_input_embeddings() is new is model.language_model.model.embed_tokens
    assert (model.get_output_embeddings() is None) == (kind is Qwen2AudioModel)
    assert model.get_decoder() is model.language_model
    assert model.get_encoder(modality="audio") is model.audio_tower


def test_a_replaced_head():
    model = tiny_model()
    head = nn.Linear(32, 64, bias=False)
    model.set_output_embeddings(head)
    assert model.get_output_embeddings() is head
    with torch.no_grad():
        torch.testing.assert_close(model(IDS).logits, head(model(IDS, output_hidden_states=True).hidden_states[-1]))


def test_the_vocabulary_grows_and_shrinks():
    model = tiny_model(noise=0.2)
    old_embedding, old_head = (m.weight.clone() for m in (model.get_input_embeddings(), model.get_output_embeddings()))
    with torch.no_grad():
        before = model(IDS).logits
    assert model.resize_token_embeddings(70) is model.get_input_embeddings()
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert (embedding.num_embeddings, head.out_features, model.vocab_size) == (70, 70, 70)
    assert model.config.text_config.vocab_size == 70
    assert torch.equal(embedding.weight[:64], old_embedding)
    assert torch.equal(head.weight[:64], old_head)
    # New rows: close to the mean of the old ones, and not all the same.
    assert (embedding.weight[64:] - old_embedding.mean(0)).abs().max() < 1e-3
    assert embedding.weight[64:].std(0).min() > 0
    with torch.no_grad():
        assert torch.equal(model(IDS).logits[..., :64], before)
        assert model.generate(torch.tensor([[69, 1]]), max_new_tokens=1).shape == (1, 3)
    model.resize_token_embeddings(64)
    assert torch.equal(model.get_input_embeddings().weight, old_embedding)
    assert model.resize_token_embeddings(65, pad_to_multiple_of=64).num_embeddings == 128
    assert model.resize_token_embeddings().num_embeddings == 128


def test_a_resized_model_is_saved_and_loaded(tmp_path):
    model = tiny_model(tiny_config(vocab_size=64))
    model.resize_token_embeddings(66)
    assert model.config.vocab_size == 66
    model.save_pretrained(tmp_path)
    again = Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(again.get_output_embeddings().weight, model.get_output_embeddings().weight)


def test_tied_stays_tied():
    model = tiny_model(tiny_config(tie_word_embeddings=True))
    model.resize_token_embeddings(70)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    model.set_input_embeddings(nn.Embedding(70, 32))
    model.tie_weights()
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_without_the_mean():
    torch.manual_seed(0)
    model = tiny_model(tiny_config(text={"initializer_range": 0.5}), noise=0.2)
    model.resize_token_embeddings(564, mean_resizing=False)
    assert abs(float(model.get_input_embeddings().weight[64:].detach().std()) - 0.5) < 0.02


@pytest.mark.parametrize(("size", "multiple"), [(0, None), (70, 0), (70, 1.3), (7.0, None), ("7", None)])
def test_sizes_that_cannot_be(size, multiple):
    with pytest.raises(ConfigError, match="expected a whole number above 0"):
        tiny_model().resize_token_embeddings(size, pad_to_multiple_of=multiple)


def test_what_cannot_be_resized(tmp_path):
    adapted = tiny_model()
    lora.inject(adapted, lora.LoraConfig(targets={"language_model": "lm_head"}))
    tiny_model().save_pretrained(tmp_path)
    quantised = Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path, quantize="int8")
    for model in (adapted, quantised):
        with pytest.raises(ConfigError, match="cannot be resized"):
            model.resize_token_embeddings(70)


# Sound


def test_audio_features():
    theirs, ours = twins()
    inputs = batch()
    features, mask = inputs["input_features"], inputs["feature_attention_mask"]
    with torch.no_grad():
        out = ours.get_audio_features(features, mask, output_hidden_states=True, output_attentions=True)
        embeds, tokens = ours.encode_audio(features, mask)
    torch.testing.assert_close(out.pooler_output, embeds, atol=1e-5, rtol=1e-5)
    assert (tokens, out.pooler_output.shape) == ([15, 9], (24, 32))
    assert (len(out.hidden_states), len(out.attentions)) == (3, 2)
    hidden = torch.arange(30) >= torch.tensor([30, 19])[:, None]
    added = hidden[:, None, None] * torch.finfo(torch.float32).min
    with torch.no_grad():
        expected = theirs.model.audio_tower(features, attention_mask=added)
    torch.testing.assert_close(out.last_hidden_state, expected.last_hidden_state, atol=1e-5, rtol=1e-4)
    assert isinstance(ours.get_audio_features(features, mask, return_dict=False), tuple)


# Counting, weights


def test_numbers_of_parameters(tmp_path):
    theirs, ours = twins()
    for options in ({}, {"only_trainable": True}, {"exclude_embeddings": True}):
        assert ours.num_parameters(**options) == theirs.num_parameters(**options), options
    assert ours.get_memory_footprint() == theirs.get_memory_footprint(return_buffers=False)
    ours.save_pretrained(tmp_path)
    for scheme in ("int8", "int4"):
        quantised = Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path, quantize=scheme)
        assert quantised.num_parameters() == ours.num_parameters()
        assert quantised.num_parameters(exclude_embeddings=True) == ours.num_parameters(exclude_embeddings=True)
        assert quantised.get_memory_footprint() < ours.get_memory_footprint() / 2


def test_weights_are_drawn_again():
    for model in (tiny_model(), Qwen2AudioEncoder(tiny_config().audio_config)):
        before = copy.deepcopy(model.state_dict())
        model.init_weights()
        after = model.state_dict()
        assert not any(torch.equal(after[n], before[n]) for n in after if n.endswith("q_proj.weight"))
        assert all(torch.equal(after[n], before[n]) for n in after if "norm" in n)


@pytest.mark.parametrize("kind", [Qwen2AudioModel, Qwen2AudioForConditionalGeneration])
def test_a_model_from_a_config(kind):
    model = kind._from_config(tiny_config(), dtype="bfloat16", attn_implementation={"text_config": "eager"})
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.config.text_config._attn_implementation == "eager"
    with pytest.raises(ConfigError, match=r"_from_config\(\) has no option 'dtpe'. Did you mean 'dtype'"):
        kind._from_config(tiny_config(), dtpe="float16")


def test_facts_that_tools_ask_for():
    assert Qwen2AudioForConditionalGeneration.can_generate()
    assert not Qwen2AudioModel.can_generate()
    assert (Qwen2AudioModel.main_input_name, Qwen2AudioEncoder.main_input_name) == ("input_ids", "input_features")
    layers = {type(module).__name__ for module in tiny_model().modules()}
    assert set(Qwen2AudioModel._no_split_modules) <= layers


# Gradient checkpointing


def gradients(model):
    model.train()
    model(**batch(), labels=batch()["input_ids"]).loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("options", [None, {"use_reentrant": False}, {"use_reentrant": True}])
def test_checkpointing_changes_no_gradient_and_recomputes(options):
    expected = gradients(tiny_model(noise=0.2))
    model = tiny_model(noise=0.2)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
    assert model.is_gradient_checkpointing
    inside, around = [], []
    for layer in (model.audio_tower.layers[0], model.language_model.model.layers[1]):
        layer.register_forward_pre_hook(lambda module, arguments: around.append(module))
        next(layer.children()).register_forward_pre_hook(lambda module, arguments: inside.append(module))
    found = gradients(model)
    assert (len(inside), len(around)) == (4, 2)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-4, msg=name)
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing
    inside.clear()
    gradients(model)
    assert len(inside) == 2


def test_every_second_layer_and_a_copy():
    model = tiny_model()
    model.activation_checkpointing_enable(every_n_layers=2)
    layers = [*model.audio_tower.layers, *model.language_model.model.layers]
    assert [layer.gradient_checkpointing for layer in layers] == [True, False, True, False]
    other = copy.deepcopy(model)
    other.activation_checkpointing_disable()
    assert model.is_activation_checkpointing
    assert not other.is_activation_checkpointing
    with pytest.raises(ConfigError, match="offload is not offered"):
        model.activation_checkpointing_enable(offload=True)


def test_a_config_that_asks_for_it():
    assert Qwen2AudioForConditionalGeneration(tiny_config(gradient_checkpointing=True)).is_gradient_checkpointing


def test_a_cache_is_not_filled_twice():
    model = tiny_model()
    model.gradient_checkpointing_enable()
    assert model(IDS).past_key_values is None
    with pytest.warns(UserWarning, match="use_cache=True has no effect with gradient checkpointing"):
        assert model(IDS, use_cache=True).past_key_values is None
    with torch.no_grad():
        assert model(IDS).past_key_values.length == 6


def test_inputs_with_gradients():
    model = tiny_model().requires_grad_(False)
    assert not model(IDS).logits.requires_grad
    model.enable_input_require_grads()
    assert model(IDS).logits.requires_grad
    with torch.no_grad():
        assert model.generate(IDS, max_new_tokens=2).shape == (1, 8)
    model.disable_input_require_grads()
    assert not model(IDS).logits.requires_grad
