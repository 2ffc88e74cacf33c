"""What people set on a config: outputs of the forward pass, dicts of attention, an audio id of 0, keys of their own."""

import json

import pytest
import torch

from kit.tiny import tiny_config, tiny_dict, tiny_model
from kit.twins import batch, twins
from qwen2_audio import Qwen2AudioConfig, Qwen2AudioEncoderConfig, Qwen2AudioForConditionalGeneration, Qwen2Config
from qwen2_audio.errors import ConfigError

IDS = torch.arange(1, 7)[None]


def keys(model, **options):
    with torch.no_grad():
        return list(model(IDS, use_cache=False, **options))


@pytest.mark.parametrize("part", ["", "text_config"])
def test_outputs_that_the_config_asks_for(part):
    model = tiny_model()
    model.set_attn_implementation("eager")
    config = getattr(model.config, part) if part else model.config
    assert "hidden_states" not in keys(model)
    config.output_hidden_states = True
    assert "hidden_states" in keys(model)
    assert "hidden_states" not in keys(model, output_hidden_states=False)
    config.output_attentions = True
    assert "attentions" in keys(model)
    assert "attentions" not in keys(model, output_attentions=False)


def test_they_are_the_references():
    theirs, ours = twins()
    for model in (theirs, ours):
        model.config.text_config.output_hidden_states = True
    with torch.no_grad():
        expected, found = (model(**batch()).hidden_states for model in (theirs, ours))
    valid = batch()["attention_mask"].bool()
    assert len(found) == len(expected) == 3
    for mine, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(mine[valid], reference[valid], atol=1e-4, rtol=1e-4)


def test_the_encoders_own():
    model = tiny_model()
    mel = torch.randn(1, 8, 60)
    model.config.audio_config.output_hidden_states = True
    assert len(model.audio_tower(mel).hidden_states) == 3
    assert model.audio_tower(mel, output_hidden_states=False).hidden_states is None


def test_return_dict():
    model = tiny_model()
    model.config.return_dict = model.config.audio_config.return_dict = False
    assert isinstance(model(IDS), tuple)
    assert isinstance(model.audio_tower(torch.randn(1, 8, 60)), tuple)
    assert "logits" in model(IDS, return_dict=True)
    with torch.no_grad():  # encoding does not depend on it
        assert isinstance(model(**batch()), tuple)
    # peft hands over None for what its caller left out
    assert isinstance(tiny_model()(IDS, return_dict=None, output_attentions=None, output_hidden_states=None), dict)


def test_an_audio_id_of_zero():
    config = tiny_config(audio_token_index=0)
    model = Qwen2AudioForConditionalGeneration(config).eval()
    inputs = {name: tensor.clone() for name, tensor in batch().items()}
    audio, padding = inputs["input_ids"] == 63, inputs["attention_mask"] == 0
    inputs["input_ids"][padding], inputs["input_ids"][audio] = 1, 0
    with torch.no_grad():
        assert model(**inputs).logits.shape == (2, 20, 64)
    with pytest.raises(ConfigError, match="audio_token_index is -1; expected a token id, 0 or above"):
        tiny_config(audio_token_index=-1)


def test_attention_by_part():
    config = tiny_config()
    config._attn_implementation = {"text_config": "eager"}
    model = Qwen2AudioForConditionalGeneration(config)
    parts = (model.config, model.config.audio_config, model.config.text_config)
    assert [part._attn_implementation for part in parts] == ["sdpa", "sdpa", "eager"]
    model.set_attn_implementation({"": "eager", "audio_config": "eager", "text_config": "sdpa"})
    assert [part._attn_implementation for part in parts] == ["eager", "eager", "sdpa"]
    assert [m.config._attn_implementation for m in (model.audio_tower, model.language_model)] == ["eager", "sdpa"]
    model.set_attn_implementation("sdpa")
    assert {part._attn_implementation for part in parts} == {"sdpa"}
    with pytest.raises(ConfigError, match='`attn_implementation="foo"` is not supported'):
        model.set_attn_implementation({"text_config": "foo"})
    assert {part._attn_implementation for part in parts} == {"sdpa"}


def test_the_constructor_takes_any_key():
    config = Qwen2AudioConfig(**tiny_dict(), audio_token_id=7, pad_token_id=3, my_key=[1])
    assert (config.audio_token_index, config.pad_token_id, config.my_key) == (7, 3, [1])
    assert Qwen2AudioConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()
    assert Qwen2AudioEncoderConfig(hidden_size=64, num_attention_heads=4).d_model == 64
    assert Qwen2Config(model_type="qwen2", rope_parameters={"rope_theta": 5.0}).rope_theta == 5.0
    with pytest.raises(ConfigError, match="model_type is 'llama'"):
        Qwen2Config(model_type="llama")


def test_json_in_and_out(tmp_path):
    config = tiny_config()
    config.text_config.output_hidden_states, config.return_dict = False, True
    config.dtype = torch.bfloat16
    assert config.to_dict()["return_dict"] is True
    assert "return_dict" not in config.to_diff_dict()
    assert "output_hidden_states" not in config.to_diff_dict()["text_config"]
    text = config.to_json_string()
    assert json.loads(text) == config.to_diff_dict()
    assert json.loads(text)["dtype"] == "bfloat16"
    assert json.loads(config.to_json_string(use_diff=False)) == config.to_dict()
    config.to_json_file(tmp_path / "config.json")
    assert Qwen2AudioConfig.from_json_file(tmp_path / "config.json").to_diff_dict() == config.to_diff_dict()
    with pytest.raises(ConfigError, match="There is no file"):
        Qwen2AudioConfig.from_json_file(tmp_path / "other.json")


def test_a_part_is_read_from_the_file_of_the_whole(tmp_path):
    config = tiny_config()
    config.save_pretrained(tmp_path)
    for name, kind in Qwen2AudioConfig.sub_configs.items():
        assert kind.from_pretrained(tmp_path).to_dict() == getattr(config, name).to_dict()
    assert config.get_text_config() is config.text_config
    assert config.text_config.get_text_config() is config.text_config


def test_changes_while_reading(tmp_path):
    tiny_config().save_pretrained(tmp_path / "inside")
    read = Qwen2AudioConfig.from_pretrained
    config = read(tmp_path, subfolder="inside", output_hidden_states=True, text_config={"vocab_size": 20})
    assert config.output_hidden_states
    assert config.text_config.to_dict() == tiny_config().text_config.to_dict() | {"vocab_size": 20}
    config, unused = read(tmp_path / "inside", return_unused_kwargs=True, foo=1, ignore_index=-1)
    assert (config.ignore_index, unused) == (-1, {"foo": 1})
    with pytest.raises(ConfigError, match=r"The config has no key 'ignore_indx'. Did you mean 'ignore_index'"):
        read(tmp_path / "inside", ignore_indx=-1)
    config.update({"anything": 2})
    assert config.to_dict()["anything"] == 2
    assert set(config) >= {"audio_config", "text_config", "anything"}


def test_a_missing_folder_is_an_os_error():
    with pytest.raises(OSError, match="No folder"):
        Qwen2AudioConfig.from_pretrained("./nowhere/at/all")


def test_labels_of_a_classifier_on_top(tmp_path):
    transformers = pytest.importorskip("transformers")
    theirs, ours = (cls(num_labels=5) for cls in (transformers.Qwen2AudioConfig, Qwen2AudioConfig))
    assert (ours.num_labels, ours.id2label, ours.label2id) == (5, theirs.id2label, theirs.label2id)
    ours.num_labels = 3
    ours.save_pretrained(tmp_path)
    assert Qwen2AudioConfig.from_pretrained(tmp_path).id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    plain = Qwen2AudioConfig()
    assert plain.num_labels == 2
    assert "id2label" not in plain.to_dict()
    assert Qwen2AudioConfig.from_pretrained(tmp_path, num_labels=4).num_labels == 4
