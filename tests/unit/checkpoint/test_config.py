"""config.json in and out: sparse official files, every spelling, and a clear sentence for what cannot work."""

import json

import pytest

from qwen2_audio.checkpoint.config import Qwen2AudioConfig, Qwen2AudioEncoderConfig, Qwen2Config
from qwen2_audio.errors import ConfigError

OFFICIAL = {  # of Qwen/Qwen2-Audio-7B-Instruct: what is absent relies on the defaults
    "architectures": ["Qwen2AudioForConditionalGeneration"],
    "audio_config": {"model_type": "qwen2_audio_encoder"},
    "audio_token_index": 151646,
    "ignore_index": -100,
    "model_type": "qwen2_audio",
    "text_config": {
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "intermediate_size": 11008,
        "max_position_embeddings": 8192,
        "model_type": "qwen2",
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000,
        "sliding_window": 32768,
        "torch_dtype": "bfloat16",
        "use_mrope": False,
        "vocab_size": 156032,
    },
    "torch_dtype": "bfloat16",
    "transformers_version": "4.38.1",
    "vocab_size": 156032,
}


def test_the_sparse_official_file_has_the_effective_values():
    config = Qwen2AudioConfig.from_dict(OFFICIAL)
    text, audio = config.text_config, config.audio_config
    assert (text.vocab_size, text.hidden_size, text.intermediate_size) == (156032, 4096, 11008)
    assert (text.num_hidden_layers, text.num_attention_heads, text.num_key_value_heads, text.head_dim) == (
        32,
        32,
        32,
        128,
    )
    assert (text.hidden_act, text.max_position_embeddings, text.rms_norm_eps, text.rope_theta) == (
        "silu",
        8192,
        1e-5,
        1e4,
    )
    assert (text.use_sliding_window, text.attention_dropout, text.use_cache) == (False, 0.0, True)
    assert (text.bos_token_id, text.eos_token_id, text.pad_token_id) == (151643, 151645, None)
    assert (config.audio_token_index, config.audio_token_id, config.ignore_index) == (151646, 151646, -100)
    assert (audio.num_mel_bins, audio.d_model, audio.encoder_layers, audio.encoder_attention_heads) == (
        128,
        1280,
        32,
        20,
    )
    assert (audio.encoder_ffn_dim, audio.max_source_positions) == (5120, 1500)
    assert config.tied is False


def test_defaults_are_those_of_the_reference():
    transformers = pytest.importorskip("transformers")
    ours, theirs = Qwen2AudioConfig(), transformers.Qwen2AudioConfig()
    for mine, reference in ((ours.text_config, theirs.text_config), (ours.audio_config, theirs.audio_config)):
        for key, value in vars(mine).items():
            if hasattr(reference, key):
                assert getattr(reference, key) == value, key
    assert theirs.text_config.rope_parameters["rope_theta"] == ours.text_config.rope_theta


def test_nothing_at_all_is_a_config():
    assert Qwen2AudioConfig.from_dict({}) == Qwen2AudioConfig()
    assert Qwen2AudioConfig(audio_config=None, text_config=None) == Qwen2AudioConfig()
    assert Qwen2AudioConfig().audio_config is not Qwen2AudioConfig().audio_config


def test_saved_and_read_again_it_is_the_same(tmp_path):
    config = Qwen2AudioConfig.from_dict(OFFICIAL)
    config.save_pretrained(tmp_path / "new")
    again = Qwen2AudioConfig.from_pretrained(tmp_path / "new", trust_remote_code=True)
    assert again == config
    assert again.to_dict() == config.to_dict()


def test_unknown_keys_are_kept_and_what_belongs_to_the_run_is_not():
    config = Qwen2AudioConfig.from_dict(OFFICIAL | {"my_key": {"a": 1}, "_attn_implementation": "flash_attention_2"})
    config._attn_implementation = "eager"
    data = config.to_dict()
    assert data["my_key"] == {"a": 1}
    assert data["text_config"]["sliding_window"] == 32768
    assert data["vocab_size"] == 156032
    assert not [key for key in data if key.startswith("_")]
    assert Qwen2AudioConfig.from_dict({"_attn_implementation": "eager"})._attn_implementation == "sdpa"


def test_aliases_work_both_ways():
    config = Qwen2AudioEncoderConfig.from_dict({"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 96})
    assert (config.d_model, config.encoder_attention_heads, config.encoder_ffn_dim) == (64, 4, 96)
    config.num_hidden_layers = 3
    assert config.encoder_layers == 3
    whole = Qwen2AudioConfig.from_dict({"audio_token_id": 7})
    assert whole.audio_token_index == 7
    whole.audio_token_id = 8
    assert whole.to_dict()["audio_token_index"] == 8


def test_the_encoder_takes_its_part_of_a_whole_file():
    data = OFFICIAL | {"audio_config": {"d_model": 40}}
    assert Qwen2AudioEncoderConfig.from_dict(data).d_model == 40
    assert Qwen2AudioEncoderConfig.from_dict({"model_type": "qwen2_audio"}) == Qwen2AudioEncoderConfig()


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 5e5},
        {"rope_theta": 5e5, "rope_scaling": None},
        {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}},
    ],
)
def test_every_spelling_of_rope_theta(rope):
    assert Qwen2Config.from_dict(rope).rope_theta == 5e5


def test_grouped_heads():
    assert Qwen2Config(num_attention_heads=8, num_key_value_heads=None).num_key_value_heads == 8
    assert Qwen2Config(hidden_size=64, num_attention_heads=8, num_key_value_heads=2, head_dim=None).head_dim == 8


@pytest.mark.parametrize("where", [{"tie_word_embeddings": True}, {"text_config": {"tie_word_embeddings": True}}])
def test_tied_only_when_the_file_says_so(where):
    assert Qwen2AudioConfig.from_dict(OFFICIAL | where).tied is True


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"model_type": "qwen2_5_omni"}, "model_type is 'qwen2_5_omni'; expected 'qwen2_audio'"),
        ({"text_config": {"model_type": "llama"}}, "model_type is 'llama'; expected 'qwen2'"),
        ({"text_config": []}, "A part of the config is a list; expected an object or a Qwen2Config"),
        ({"text_config": {"hidden_size": "64"}}, "text_config: hidden_size is '64'; expected a whole number above 0"),
        ({"text_config": {"num_attention_heads": 0}}, "num_attention_heads is 0; expected a whole number above 0"),
        ({"text_config": {"rms_norm_eps": None}}, "text_config: rms_norm_eps is None; expected a number"),
        ({"text_config": {"tie_word_embeddings": "no"}}, "tie_word_embeddings is 'no'; expected true or false"),
        ({"audio_config": {"d_model": 12.5}}, "audio_config: d_model is 12.5; expected a whole number above 0"),
        ({"audio_config": {"d_model": 30}}, "d_model 30 is not a multiple of encoder_attention_heads 20"),
        ({"audio_config": {"activation_function": "relu"}}, "activation_function is 'relu'; expected 'gelu'"),
        ({"text_config": {"hidden_size": 100}}, "hidden_size 100 is not a multiple of num_attention_heads 32"),
        ({"text_config": {"num_key_value_heads": 5}}, "32 is not a multiple of num_key_value_heads 5"),
        ({"text_config": {"use_sliding_window": True}}, "use_sliding_window is true"),
        ({"text_config": {"hidden_act": "gelu"}}, "hidden_act is 'gelu'; expected 'silu'"),
        ({"text_config": {"rope_scaling": {"type": "yarn"}}}, "rope type is 'yarn'; expected 'default'"),
        ({"text_config": {"rope_parameters": {"rope_type": "linear"}}}, "rope type is 'linear'; expected 'default'"),
    ],
)
def test_what_cannot_work_is_refused(data, sentence):
    with pytest.raises(ConfigError) as caught:
        Qwen2AudioConfig.from_dict(data)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "has no config.json; expected the folder of a Qwen2-Audio checkpoint"),
        ("{", "is not valid JSON ("),
        ("[1]", "holds a JSON list; expected an object"),
        (json.dumps({"model_type": "bert"}), "model_type is 'bert'"),
    ],
)
def test_a_bad_file_is_refused(tmp_path, text, sentence):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError) as caught:
        Qwen2AudioConfig.from_pretrained(tmp_path)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [("audio_token_index", "151646", "a token id, 0 or above"), ("tie_word_embeddings", 1, "true or false")],
)
def test_values_of_the_whole_are_checked_as_those_of_its_parts(key, value, expected):
    with pytest.raises(ConfigError, match=f"config: {key} is {value!r}; expected {expected}. Fix config.json"):
        Qwen2AudioConfig(**{key: value})
