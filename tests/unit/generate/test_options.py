import warnings

import numpy as np
import pytest
import torch

from qwen2_audio.errors import ConfigError
from qwen2_audio.generate.config import GenerationConfig
from qwen2_audio.generate.options import resolve


def test_precedence():
    """Keywords, then the config passed, then the model's own, then the defaults."""
    of_model = GenerationConfig(temperature=0.7, top_k=20, top_p=0.5, do_sample=True)
    options = resolve(of_model, GenerationConfig(top_k=10, top_p=0.6), {"top_p": 0.9})
    config = options.config
    assert (config.temperature, config.top_k, config.top_p, config.num_beams) == (0.7, 10, 0.9, 1)
    assert options.caller_names == {"top_k", "top_p"}
    assert of_model == GenerationConfig(temperature=0.7, top_k=20, top_p=0.5, do_sample=True), "it was changed"


def test_a_keyword_of_none_unsets():
    config = resolve(GenerationConfig(top_k=20, eos_token_id=3), None, {"top_k": None, "eos_token_id": None}).config
    assert config.top_k is None
    assert config.eos_ids == []


def test_the_config_may_be_a_dict_or_a_foreign_object():
    class Foreign:
        def to_dict(self):
            return {"max_new_tokens": 3, "transformers_version": "5"}

    assert resolve(None, {"max_new_tokens": 3}, {}).config.max_new_tokens == 3
    assert resolve(None, Foreign(), {}).config.max_new_tokens == 3
    with pytest.raises(ConfigError, match="generation_config is 3; expected a GenerationConfig or a dict"):
        resolve(None, 3, {})


def test_a_typing_error_in_a_dict_is_not_swallowed():
    with pytest.raises(
        ConfigError, match=r"generation_config has no option 'max_new_token'\. Did you mean 'max_new_tok"
    ):
        resolve(None, {"max_new_token": 3}, {})
    options = resolve(None, {"transformers_version": "5", "_from_model_config": True}, {})
    assert options.caller_names == frozenset()
    assert resolve(None, {}, {}).caller_names == frozenset()


def test_numbers_of_numpy_and_torch_are_numbers():
    config = resolve(None, None, {"max_new_tokens": np.int64(4), "eos_token_id": torch.tensor([3, 4])}).config
    assert (config.max_new_tokens, config.eos_token_id) == (4, [3, 4])
    assert type(config.max_new_tokens) is int


REFUSED = {
    "max_new_token": (3, "generate() has no option 'max_new_token'. Did you mean 'max_new_tokens'?"),
    "audios": ([], "generate() has no option 'audios'."),
    "input_feature": (1, "generate() has no option 'input_feature'. Did you mean 'input_features'?"),
    "guidance_scale": (1.5, "guidance_scale is not offered (found 1.5). Leave it out."),
    "watermarking_config": ({}, "watermarking_config is not offered. Leave it out."),
    "num_beam_groups": (2, "num_beam_groups is not offered (found 2)."),
    "penalty_alpha": (0.6, "penalty_alpha is not offered"),
    "cache_implementation": ("static", "cache_implementation is not offered (found 'static'). There is one cache"),
    "assistant_model": (object(), "assistant_model is not offered. Use prompt_lookup_num_tokens"),
    "prefill_chunk_size": (8, "prefill_chunk_size is not offered"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_offered_is_refused_by_name(name):
    value, message = REFUSED[name]
    with pytest.raises(ConfigError) as error:
        resolve(None, None, {name: value})
    assert message in str(error.value)


def test_a_file_that_asks_for_what_is_not_offered_is_refused_too():
    with pytest.raises(ConfigError, match="guidance_scale is not offered"):
        resolve(GenerationConfig.from_dict({"guidance_scale": 2.0}), None, {})


def test_neutral_values_and_unknown_keys_of_a_file_pass():
    of_model = GenerationConfig.from_dict({"guidance_scale": 1.0, "num_beam_groups": 1, "whatever": 3})
    resolve(of_model, None, {"cache_implementation": "dynamic", "synced_gpus": False})


CONTRADICTIONS = [
    ({"do_sample": True, "temperature": 0.0}, "temperature is 0; expected a number above 0. For greedy decoding set"),
    ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences is 3 with num_beams=2; ask for 2 at most"),
    ({"num_return_sequences": 3}, "greedy decoding finds one answer; set do_sample=True or num_beams=3"),
    ({"exponential_decay_length_penalty": (1, 1.1)}, "needs an eos_token_id to raise; none is set"),
    ({"prompt_lookup_num_tokens": 3, "num_beams": 2}, "prompt_lookup_num_tokens needs num_beams=1"),
    ({"prompt_lookup_num_tokens": 3, "use_cache": False}, "prompt_lookup_num_tokens needs use_cache=True"),
    (
        {"prompt_lookup_num_tokens": 3, "do_sample": True, "num_return_sequences": 2},
        "num_return_sequences is 2; prompt_lookup_num_tokens needs num_return_sequences=1",
    ),
    ({"prompt_lookup_num_tokens": 3, "output_attentions": True}, "output_attentions is not offered with prompt_lookup"),
]


@pytest.mark.parametrize(("kwargs", "message"), CONTRADICTIONS)
def test_contradictions(kwargs, message):
    with pytest.raises(ConfigError, match=message):
        resolve(None, None, kwargs)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"temperature": 0.5, "top_p": 0.9}, "Without effect here: temperature, top_p. That needs do_sample=True"),
        ({"length_penalty": 2.0}, "Without effect here: length_penalty. That needs num_beams above 1"),
    ],
)
def test_options_that_change_nothing_are_told(kwargs, message):
    with pytest.warns(UserWarning, match=message) as caught:
        resolve(None, None, kwargs)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("kwargs", [{"temperature": 0}, {"top_k": None}, {"temperature": 1.0}, {"length_penalty": 1.0}])
def test_neutral_values_are_not_told(kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resolve(GenerationConfig(top_p=0.5), None, kwargs)
