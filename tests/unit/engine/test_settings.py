import pytest

from qwen2_audio import GenerationConfig, SamplingParams
from qwen2_audio.engine.settings import DEFAULT_MAX_TOKENS, EngineSettings, Limit, generate_options, limit, stop_strings
from qwen2_audio.errors import ConfigError, ContextLengthError
from qwen2_audio.inputs.prompt import Prompt
from qwen2_audio.types import Heard


def prompt(positions, audio=0):
    return Prompt([1] * positions, [], [], (Heard(audio / 25, audio),) if audio else ())


def drawn(**params):
    options = generate_options(SamplingParams(**params))
    return {key: options[key] for key in options if key not in FIXED}


FIXED = {"num_beams": 1, "num_return_sequences": 1, "return_dict_in_generate": False}


@pytest.mark.parametrize(
    ("params", "options"),
    [
        ({}, {}),
        ({"temperature": 0}, {"do_sample": False}),
        ({"temperature": 0, "top_p": 0.5, "top_k": 3, "min_p": 0.1}, {"do_sample": False}),
        ({"temperature": 0.7}, {"do_sample": True, "temperature": 0.7}),
        ({"top_p": 0.9}, {"do_sample": True, "top_p": 0.9}),
        ({"top_k": 0}, {"do_sample": True, "top_k": 0}),
        ({"min_p": 0.1}, {"do_sample": True, "min_p": 0.1}),
        ({"repetition_penalty": 2, "min_tokens": 3}, {"repetition_penalty": 2.0, "min_new_tokens": 3}),
    ],
)
def test_what_is_left_out_comes_from_the_checkpoint(params, options):
    assert drawn(**params) == options
    assert FIXED.items() <= generate_options(SamplingParams(**params)).items()


def test_the_limit_is_the_callers_then_the_checkpoints_then_the_default():
    config = GenerationConfig(max_new_tokens=40)
    assert limit(prompt(10), SamplingParams(max_tokens=5), config, 100) == Limit(5, "length")
    assert limit(prompt(10), SamplingParams(), config, 100) == Limit(40, "length")
    assert limit(prompt(10), SamplingParams(), GenerationConfig(), 1000) == Limit(DEFAULT_MAX_TOKENS, "length")


def test_only_what_nobody_asked_for_gives_way_to_the_context():
    assert limit(prompt(90), SamplingParams(), GenerationConfig(), 100) == Limit(10, "context")
    assert limit(prompt(90), SamplingParams(max_tokens=10), GenerationConfig(), 100) == Limit(10, "length")
    with pytest.raises(
        ContextLengthError,
        match=r"The conversation's 90 positions and max_tokens=11 make 101, and the model's context holds 100; "
        r"ask for max_tokens=10 or fewer",
    ):
        limit(prompt(90), SamplingParams(max_tokens=11), GenerationConfig(), 100)


def test_a_conversation_that_fills_the_context_is_refused():
    with pytest.raises(
        ContextLengthError, match=r"takes 100 positions, 75 of them sound, and the model's context holds 100"
    ):
        limit(prompt(100, audio=75), SamplingParams(), GenerationConfig(), 100)


def test_more_tokens_at_least_than_at_most_are_refused():
    with pytest.raises(ConfigError, match=r"min_tokens is 9 and at most 5 new tokens may come; raise max_tokens\."):
        limit(prompt(10), SamplingParams(max_tokens=5, min_tokens=9), GenerationConfig(), 100)


def test_the_checkpoints_stop_strings_hold_beside_the_callers():
    assert stop_strings(SamplingParams(stop="a"), GenerationConfig(stop_strings=["b", "c"])) == ("a", "b", "c")
    assert stop_strings(SamplingParams(), GenerationConfig(stop_strings="b")) == ("b",)


def test_a_file_that_counts_the_prompt_counts_each_clip_as_one_position():
    config = GenerationConfig(max_length=40)
    assert limit(prompt(10), SamplingParams(), config, 1000) == Limit(30, "length")
    assert limit(prompt(100, audio=95), SamplingParams(), config, 1000) == Limit(34, "length")
    assert limit(prompt(10), SamplingParams(max_tokens=50), config, 1000) == Limit(50, "length")
    assert limit(prompt(10), SamplingParams(), GenerationConfig(max_length=40, max_new_tokens=7), 99).tokens == 7
    with pytest.raises(ConfigError, match="min_tokens is 31 and at most 30"):
        limit(prompt(10), SamplingParams(min_tokens=31), config, 1000)
    with pytest.raises(ContextLengthError, match=r"The prompt counts 40 .* and max_length is 40"):
        limit(prompt(40), SamplingParams(), config, 1000)


@pytest.mark.parametrize("temperature", [0, 5e-324, 1e-40, 9e-6])
def test_a_temperature_that_logits_cannot_be_divided_by_is_greedy(temperature):
    assert drawn(temperature=temperature, top_p=0.5) == {"do_sample": False}


def test_the_names_of_version_0_1_work_with_a_notice():
    names = "(step_tokens is now max_num_batched_tokens|reuse is now enable_prefix_caching); the old name goes"
    with pytest.warns(FutureWarning, match=f"EngineSettings: {names}") as caught:
        settings = EngineSettings(1024, step_tokens=7, reuse=False)
    assert settings == EngineSettings(1024, max_num_batched_tokens=7, enable_prefix_caching=False)
    assert len(caught) == 2 and caught[0].filename == __file__
    with pytest.raises(TypeError, match="step_token"):
        EngineSettings(step_token=7)
