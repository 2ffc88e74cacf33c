import json

import pytest

from qwen2_audio.errors import ConfigError
from qwen2_audio.generate.config import GenerationConfig


def test_everything_is_unset_at_first():
    assert GenerationConfig().to_dict() == {}


def test_unknown_keys_of_a_file_are_kept_and_written_back(tmp_path):
    data = {"temperature": 0.7, "eos_token_id": [1, 2], "transformers_version": "4.45.0", "chat_format": "chatml"}
    (tmp_path / "generation_config.json").write_text(json.dumps(data))
    config = GenerationConfig.from_pretrained(tmp_path)
    assert (config.temperature, config.eos_ids, config.chat_format) == (0.7, [1, 2], "chatml")
    config.save_pretrained(tmp_path / "copy")
    assert json.loads((tmp_path / "copy" / "generation_config.json").read_text()) == data


def test_biases_survive_the_file(tmp_path):
    GenerationConfig(sequence_bias={(3, 4): -1.5}).save_pretrained(tmp_path)
    assert GenerationConfig.from_pretrained(tmp_path).sequence_bias == [[[3, 4], -1.5]]


def test_a_folder_without_the_file(tmp_path):
    with pytest.raises(ConfigError, match=r"has no generation_config\.json; leave it to the defaults"):
        GenerationConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is not valid JSON"), ("[1]", "holds a JSON list; expected an obj")]
)
def test_a_broken_file(tmp_path, text, message):
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        GenerationConfig.from_pretrained(tmp_path)


def test_update_sets_options_and_returns_the_rest():
    config = GenerationConfig(top_k=5)
    assert config.update(top_k=None, top_p=0.5, colour="red") == {"colour": "red"}
    assert (config.top_k, config.top_p) == (None, 0.5)


def test_pad_falls_back_to_the_first_end_of_text():
    assert GenerationConfig(eos_token_id=[7, 8]).pad_id == 7
    assert GenerationConfig(eos_token_id=7, pad_token_id=0).pad_id == 0
    assert GenerationConfig().pad_id is None


BAD = {
    "max_new_tokens": (0, "max_new_tokens is 0; expected a whole number of at least 1."),
    "max_length": (2.5, "max_length is 2.5; expected a whole number"),
    "top_p": (1.5, "top_p is 1.5; expected a number of at least 0 and at most 1."),
    "min_p": (-0.1, "min_p is -0.1"),
    "top_k": (-1, "top_k is -1; expected a whole number of at least 0."),
    "top_h": (0, "top_h is 0; expected a number above 0 and at most 1."),
    "typical_p": (0, "typical_p is 0"),
    "temperature": (-1, "temperature is -1; expected a number of at least 0."),
    "repetition_penalty": (0, "repetition_penalty is 0; expected a number above 0."),
    "num_beams": (0, "num_beams is 0"),
    "num_return_sequences": (0, "num_return_sequences is 0"),
    "no_repeat_ngram_size": ("2", "no_repeat_ngram_size is '2'"),
    "early_stopping": ("always", "early_stopping is 'always'; expected True, False or 'never'."),
    "stop_strings": (["a", ""], "expected a string of at least one character, or a list of them."),
    "max_time": (0, "max_time is 0; expected a number above 0."),
    "eos_token_id": ([], "expected a token id, a list of them, or -1 for none."),
    "pad_token_id": (-2, "pad_token_id is -2"),
    "bad_words_ids": ([[]], "expected a list of lists of token ids."),
    "sequence_bias": ([[1, 2]], "expected {(token ids): bias}"),
    "exponential_decay_length_penalty": ((1,), "expected (first new token, factor)."),
    "suppress_tokens": (["a"], "expected a list of token ids."),
    "prompt_lookup_num_tokens": (0, "prompt_lookup_num_tokens is 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_values_that_cannot_work(name):
    value, message = BAD[name]
    with pytest.raises(ConfigError) as error:
        GenerationConfig(**{name: value}).check_values()
    assert message in str(error.value)


def test_values_that_work():
    GenerationConfig(
        early_stopping="never",
        sequence_bias={(1, 2): 1.0},
        bad_words_ids=[[1]],
        stop_strings="x",
        eos_token_id=3,
        length_penalty=-1.0,
        temperature=1,
    ).check_values()
