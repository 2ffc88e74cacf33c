import numpy as np
import pytest
import torch

from qwen2_audio.errors import ConfigError, ContextLengthError, PromptError
from qwen2_audio.generate.constraints import MinNewTokens
from qwen2_audio.generate.generate import generate
from qwen2_audio.generate.streamers import TextIteratorStreamer

A = 31


def ids(*rows):
    return torch.tensor(rows)


def test_greedy_counts(counting):
    assert generate(counting, ids([1, 2, 3]), max_new_tokens=4).tolist() == [[1, 2, 3, 4, 5, 6, 7]]


def test_the_prompt_runs_once_and_then_one_token_a_step(counting):
    generate(counting, ids([1, 2, 3]), max_new_tokens=4)
    assert [c["new"] for c in counting.language_model.calls] == [3, 1, 1, 1]
    assert counting.encoded == 1
    assert counting.capacity == 7


def test_a_mask_of_ones_is_dropped(counting):
    generate(counting, ids([1, 2]), attention_mask=torch.ones(1, 2), max_new_tokens=2)
    assert all(c["mask"] is None and c["positions"] is None for c in counting.language_model.calls)


@pytest.mark.parametrize("prompt", [[[0, 0, 1], [1, 2, 3]], [[1, 0, 0], [1, 2, 3]]], ids=["left", "right"])
def test_positions_and_mask_of_a_padded_batch(counting, prompt):
    out = generate(counting, ids(*prompt), attention_mask=(ids(*prompt) != 0).long(), max_new_tokens=2)
    assert out.tolist() == [[*prompt[0], 2, 3], [1, 2, 3, 4, 5]]
    prefill, step = counting.language_model.calls
    assert prefill["mask"].tolist() == [[0, 0, 1], [1, 1, 1]]
    assert prefill["positions"].tolist() == [[0, 0, 0], [0, 1, 2]]
    assert step["positions"].tolist() == [[1], [3]]


def test_rows_finish_apart_and_are_filled_up(counting):
    out = generate(counting, ids([1, 2], [5, 6]), max_new_tokens=5, eos_token_id=8, pad_token_id=0)
    assert out[:, 2:].tolist() == [[3, 4, 5, 6, 7], [7, 8, 0, 0, 0]]


def test_it_ends_when_all_rows_have(counting):
    out = generate(counting, ids([1, 2], [5, 6]), max_new_tokens=20, eos_token_id=[8, 4])
    assert out[:, 2:].tolist() == [[3, 4], [7, 8]]


def test_max_length_counts_a_clip_as_one(counting):
    prompt = ids([1, A, A, A, A, A, 2])
    assert generate(counting, prompt, max_length=5).shape[1] == 7 + 2


def test_a_prompt_too_long_is_refused_before_anything_is_computed(counting):
    with pytest.raises(ContextLengthError, match="The prompt takes 70 positions"):
        generate(counting, torch.ones(1, 70, dtype=torch.long), max_new_tokens=1)
    assert counting.encoded == 0


def test_stop_strings(counting, letters):
    out = generate(counting, ids([1, 2]), max_new_tokens=20, stop_strings=["fg"], tokenizer=letters)
    assert letters.decode(out[0]) == "bcdefg"
    with pytest.raises(
        ConfigError, match="stop_strings needs the tokenizer to read what was generated; pass tokenizer="
    ):
        generate(counting, ids([1, 2]), max_new_tokens=20, stop_strings=["fg"])


def test_max_time(counting):
    assert generate(counting, ids([1, 2]), max_new_tokens=20, max_time=1e-9).shape[1] == 3


def test_a_users_criterion(counting):
    out = generate(counting, ids([1, 2]), max_new_tokens=20, stopping_criteria=[lambda i, s: i[:, -1] == 6])
    assert out.tolist() == [[1, 2, 3, 4, 5, 6]]


def test_rows_that_end_apart_need_a_pad_id(counting):
    with pytest.raises(ConfigError, match="no pad_token_id is set to fill them up"):
        generate(counting, ids([1], [2]), max_new_tokens=3, stopping_criteria=[lambda i, s: False])


def test_a_users_processor_comes_after_the_built_in_ones(counting):
    def ban_four(input_ids, scores):
        assert scores[0, 3].isneginf() or input_ids.shape[1] != 2
        scores = scores.clone()
        scores[:, 4] = float("-inf")
        return scores

    out = generate(counting, ids([1, 2]), max_new_tokens=1, suppress_tokens=[3], logits_processor=[ban_four])
    assert out[0, -1] == 0


def test_a_users_processor_of_the_same_class_replaces_the_built_in_one(counting):
    mine = MinNewTokens(2, 0, [3])
    out = generate(counting, ids([1, 2]), max_new_tokens=5, min_new_tokens=3, eos_token_id=3, logits_processor=[mine])
    assert out.tolist() != [[1, 2, 3]], "min_length still holds"
    out = generate(counting, ids([1, 2]), max_new_tokens=5, eos_token_id=3)
    assert out.tolist() == [[1, 2, 3]]


def test_min_new_tokens_blocks_every_end_of_text(counting):
    out = generate(counting, ids([1, 2]), max_new_tokens=5, min_new_tokens=1, eos_token_id=[3, 0])
    assert out[0, 2] == 1, "the first token that is neither 3 nor 0"


def test_prefix_allowed_tokens(counting):
    out = generate(counting, ids([1], [2]), max_new_tokens=2, prefix_allowed_tokens_fn=lambda row, i: [20 + row])
    assert out[:, 1:].tolist() == [[20, 20], [21, 21]]
    options = {"do_sample": True, "num_return_sequences": 2, "max_new_tokens": 1}
    out = generate(counting, ids([1], [2]), prefix_allowed_tokens_fn=lambda row, i: [20 + row], **options)
    assert out[:, 1].tolist() == [20, 20, 21, 21]


def test_seed_makes_draws_repeatable(scripted):
    model = scripted(lambda token: token, do_sample=True, top_k=0, temperature=100.0, max_new_tokens=12)
    first = generate(model, ids([1], [2]), seed=5)
    state = torch.get_rng_state()
    assert torch.equal(first, generate(model, ids([1], [2]), seed=5))
    assert torch.equal(state, torch.get_rng_state()), "the global state was touched"
    assert not torch.equal(first, generate(model, ids([1], [2]), seed=6))
    generator = torch.Generator().manual_seed(5)
    assert torch.equal(first, generate(model, ids([1], [2]), generator=generator))
    with pytest.raises(ConfigError, match="seed and generator are both given; pass one of them"):
        generate(model, ids([1]), seed=5, generator=generator)


def test_the_models_own_generation_config_holds(scripted):
    model = scripted(lambda token: token + 1, max_new_tokens=2)
    assert generate(model, ids([1])).tolist() == [[1, 2, 3]]
    assert generate(model, ids([1]), max_new_tokens=1).tolist() == [[1, 2]]


def test_output_fields(counting):
    out = generate(
        counting, ids([1, 2]), max_new_tokens=3, return_dict_in_generate=True, output_scores=True, output_logits=True
    )
    assert out.sequences.tolist() == out["sequences"].tolist() == out[0].tolist() == [[1, 2, 3, 4, 5]]
    assert [t.shape for t in out.scores] == [t.shape for t in out["logits"]] == [(1, 32)] * 3
    assert out.past_key_values.length == 4
    assert out.attentions is None


def test_num_return_sequences_keeps_prompts_together(counting):
    out = generate(counting, ids([1], [5]), max_new_tokens=1, do_sample=True, top_k=1, num_return_sequences=2)
    assert out.tolist() == [[1, 2], [1, 2], [5, 6], [5, 6]]


class Recorder:
    def __init__(self):
        self.values, self.ended = [], 0

    def put(self, value):
        self.values.append(value.tolist())

    def end(self):
        self.ended += 1


def test_a_streamer_gets_the_prompt_then_each_token(counting):
    streamer = Recorder()
    generate(counting, ids([1, 2]), max_new_tokens=3, streamer=streamer)
    assert streamer.values == [[[1, 2]], [3], [4], [5]]
    assert streamer.ended == 1


@pytest.mark.parametrize("kwargs", [{"max_new_tokns": 3}, {"max_new_tokens": 1000}])
def test_a_streamer_ends_when_the_call_is_refused(counting, letters, kwargs):
    streamer = TextIteratorStreamer(letters, timeout=1)
    with pytest.raises(ValueError, match="max_new_tokens"):
        generate(counting, ids([1, 2]), streamer=streamer, **kwargs)
    with pytest.raises(ValueError, match="max_new_tokens"):
        next(streamer)


def test_a_streamer_cannot_follow_beams(counting):
    with pytest.raises(ConfigError, match="A streamer cannot follow beam search"):
        generate(counting, ids([1]), max_new_tokens=3, num_beams=2, streamer=Recorder())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"generate\(\) got no input_ids; pass the processor's whole output"),
        ({"input_ids": torch.tensor([1, 2])}, r"input_ids has shape \[2\]; expected whole numbers \[prompts, tokens\]"),
        (
            {"input_ids": [[1, 2]]},
            r"input_ids is a list; expected a tensor: make it with the processor's return_tensors",
        ),
        ({"input_ids": np.ones((1, 2), int)}, r"input_ids is a ndarray; expected a tensor"),
        ({"input_ids": torch.zeros(1, 0, dtype=torch.long)}, r"input_ids has shape \[1, 0\]"),
        ({"input_ids": torch.zeros(1, 3)}, "expected whole numbers"),
        ({"input_ids": ids([1, 99])}, "input_ids run from 1 to 99; expected ids from 0 to 31"),
        (
            {"input_ids": ids([1, 2]), "attention_mask": torch.ones(1, 3)},
            r"attention_mask has shape \[1, 3\]; expected \[1, 2\], that of input_ids",
        ),
        (
            {"input_ids": ids([1, 2], [3, 4]), "attention_mask": ids([1, 1], [0, 0])},
            "Prompt 2 of 2 is all padding; give each at least one token",
        ),
    ],
)
def test_inputs_that_cannot_work(counting, arguments, message):
    with pytest.raises(PromptError, match=message):
        generate(counting, max_new_tokens=1, **arguments)


@pytest.mark.parametrize(("eos", "mask"), [(9, [[0, 1, 1], [1, 1, 1]]), (0, None)])
def test_a_missing_mask_is_read_from_the_pad_id(counting, eos, mask):
    """Unless the pad id is also an end of text, which may stand in a prompt."""
    generate(counting, ids([0, 1, 2], [3, 4, 5]), max_new_tokens=1, pad_token_id=0, eos_token_id=eos)
    found = counting.language_model.calls[0]["mask"]
    assert (found is None) == (mask is None)
    assert mask is None or found.tolist() == mask


def test_repetition_penalty_does_not_depend_on_padding(scripted):
    """Padding holds id 2, which is what comes next: it must not be penalised for that."""
    model = scripted(lambda token: 2)
    prompt, mask = ids([2, 2, 1], [5, 6, 7]), ids([0, 0, 1], [1, 1, 1])
    found = generate(
        model, prompt, attention_mask=mask, max_new_tokens=1, repetition_penalty=100.0, no_repeat_ngram_size=1
    )
    assert found[0, -1] == 2
    assert generate(model, ids([2, 1]), max_new_tokens=1, repetition_penalty=100.0, no_repeat_ngram_size=1)[0, -1] != 2


@pytest.mark.parametrize("name", ["pad_token_id", "forced_bos_token_id", "forced_eos_token_id"])
def test_ids_outside_the_vocabulary_are_refused(counting, name):
    """On a GPU such an index is an assertion in a kernel, after which nothing runs any more."""
    with pytest.raises(ConfigError, match=f"{name} is 32; expected ids from 0 to 31, the model's vocabulary"):
        generate(counting, ids([1, 2], [3, 4]), max_new_tokens=3, **{name: 32})


def test_a_pad_id_outside_the_vocabulary_does_no_harm_to_one_prompt(counting):
    assert generate(counting, ids([1, 2]), max_new_tokens=1, pad_token_id=32).tolist() == [[1, 2, 3]]


def test_an_end_of_text_outside_the_vocabulary_never_comes(counting):
    options = {"max_new_tokens": 3, "exponential_decay_length_penalty": (0, 1.5), "pad_token_id": 0}
    assert generate(counting, ids([1, 2]), eos_token_id=99, **options).tolist() == [[1, 2, 3, 4, 5]]


def test_a_generator_of_another_device_is_refused(counting):
    counting.device = torch.device("meta")
    with pytest.raises(
        ConfigError, match=r"generator lies on cpu and the model on meta; make it with torch\.Generator"
    ):
        generate(counting, ids([1]), max_new_tokens=1, do_sample=True, generator=torch.Generator())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "options", [{"num_beams": 3}, {"sequence_bias": {(7,): 0.123}}, {"eta_cutoff": 0.0123}], ids=str
)
def test_torchs_default_dtype_changes_nothing(counting, options, dtype):
    """Scripts set it around a load; scores are fp32 all the same."""
    options = {"max_new_tokens": 4, "do_sample": "eta_cutoff" in options, **options}
    reference = {"return_dict_in_generate": True, "output_scores": True, "seed": 1}
    expected = generate(counting, ids([1, 2]), **options, **reference)
    torch.set_default_dtype(dtype)
    try:
        actual = generate(counting, ids([1, 2]), **options, **reference)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(actual.sequences, expected.sequences)
    assert actual.scores[0].dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(actual.scores, expected.scores, strict=True))
