"""Tokens of generate() against transformers' on tiny checkpoints in fp32."""

from typing import Any

import pytest
import torch

from qwen2_audio.generate.generate import generate

EOS, PAD = 2, 1
PROMPTS = {
    "one clip": [[5, 60, 6, 7]],
    "text only": [[5, 6, 7, 8, 9]],
    "two clips in a row": [[5, 60, 6, 41, 7]],
    "mixed batch": [[5, 60, 6], [7, 38, 8, 9, 10], [11, 12], [13, 45, 14, 50, 15]],
}
OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "repetition penalty": {"repetition_penalty": 1.3},
    "ngram": {"no_repeat_ngram_size": 2},
    "all constraints": {
        "repetition_penalty": 1.1,
        "no_repeat_ngram_size": 3,
        "min_new_tokens": 4,
        "bad_words_ids": [[7], [30, 31]],
        "sequence_bias": {(20,): 1.5, (9, 21): 2.0},
        "suppress_tokens": [40, 41],
        "begin_suppress_tokens": [42, 52],
    },
    "ending": {"exponential_decay_length_penalty": (2, 1.5), "forced_eos_token_id": EOS},
    "beams": {"num_beams": 3},
    "beams, several answers": {"num_beams": 4, "num_return_sequences": 3, "early_stopping": True},
    "beams, never": {"num_beams": 3, "early_stopping": "never", "length_penalty": 2.0},
    "beams, short": {"num_beams": 3, "length_penalty": -1.0, "early_stopping": True, "repetition_penalty": 1.2},
}


def both(twins, inputs, **options):
    theirs, ours = twins
    options = {"max_new_tokens": 10, "eos_token_id": EOS, "pad_token_id": PAD, "do_sample": False} | options
    options = {"return_dict_in_generate": True, "output_scores": True} | options
    seed = options.pop("torch_seed", 0)
    torch.manual_seed(seed)
    expected = theirs.generate(**inputs, **options)
    torch.manual_seed(seed)
    return expected, generate(ours, **inputs, **options)


# With beams the reference gives clips to the wrong rows as soon as rows have different numbers of them;
# tests/equivalence covers those.
CASES = {
    f"{rows}: {name}": (PROMPTS[rows], options)
    for rows in PROMPTS
    for name, options in OPTIONS.items()
    if "num_beams" not in options or rows in ("one clip", "text only")
}


@pytest.mark.parametrize(("rows", "options"), CASES.values(), ids=CASES)
def test_greedy_and_beams(random_twins, make_inputs, rows, options):
    expected, found = both(random_twins, make_inputs(rows), **options)
    assert found.sequences.tolist() == expected.sequences.tolist()
    torch.testing.assert_close(found.scores, expected.scores, atol=1e-4, rtol=1e-4)
    if "num_beams" in options:
        torch.testing.assert_close(found.sequences_scores, expected.sequences_scores, atol=1e-4, rtol=1e-4)
        assert found.beam_indices.tolist() == expected.beam_indices.tolist()


@pytest.mark.parametrize("options", [o for n, o in OPTIONS.items() if n.startswith("beams")])
@pytest.mark.parametrize("eos", [EOS, [EOS, 9, 30], None])
def test_beams_of_a_batch_of_texts(random_twins, make_inputs, options, eos):
    rows = [[5, 6, 7], [8, 9, 10, 11, 12], [13]]
    expected, found = both(random_twins, make_inputs(rows), **options, eos_token_id=eos)
    assert found.sequences.tolist() == expected.sequences.tolist()
    torch.testing.assert_close(found.sequences_scores, expected.sequences_scores, atol=1e-4, rtol=1e-4)


def test_beams_of_a_batch_with_one_clip_each(random_twins, make_inputs):
    expected, found = both(random_twins, make_inputs([[5, 60, 6], [7, 41, 8, 9]]), num_beams=3)
    assert found.sequences.tolist() == expected.sequences.tolist()


SAMPLED = {
    "plain": {"top_k": 0},
    "as the instruct checkpoint": {"temperature": 0.7, "top_k": 20, "top_p": 0.5, "repetition_penalty": 1.1},
    "global defaults": {},
    "hot": {"temperature": 1.7, "min_p": 0.05, "typical_p": 0.9},
    "cutoffs": {"epsilon_cutoff": 0.01, "eta_cutoff": 0.02, "renormalize_logits": True},
    "top_h": {"top_h": 0.4, "top_k": None},
    "several": {"num_return_sequences": 3, "temperature": 1.2},
    "beams": {"num_beams": 3, "top_k": 20, "temperature": 1.3},
}


@pytest.mark.parametrize("options", SAMPLED.values(), ids=SAMPLED)
@pytest.mark.parametrize("rows", [[[5, 60, 6, 7]], [[5, 60, 6], [7, 8, 9, 10]]], ids=["alone", "batch"])
def test_sampled_with_the_same_torch_seed(random_twins, make_inputs, rows, options):
    if len(rows) > 1 and options.keys() & {"num_beams", "num_return_sequences"}:
        rows = [[5, 60, 6], [7, 41, 8]]
    for seed in range(3):
        expected, found = both(random_twins, make_inputs(rows), do_sample=True, torch_seed=seed, **options)
        assert found.sequences.tolist() == expected.sequences.tolist()


def test_several_ends_of_text_and_rows_that_finish_apart(random_twins, make_inputs):
    inputs = make_inputs(PROMPTS["mixed batch"])
    free, _ = both(random_twins, inputs, eos_token_id=None)
    width = inputs["input_ids"].shape[1]
    ends = [int(free.sequences[0, width + 2]), int(free.sequences[3, width + 6])]
    expected, found = both(random_twins, inputs, eos_token_id=ends)
    assert found.sequences.tolist() == expected.sequences.tolist()
    assert (found.sequences[0] == PAD).any(), "a row should have been filled up"


def test_raw_logits_hidden_states_and_attentions(random_twins, make_inputs):
    inputs = make_inputs([[5, 60, 6, 7], [8, 41, 9]])
    names = ("output_logits", "output_hidden_states", "output_attentions")
    expected, found = both(random_twins, inputs, **dict.fromkeys(names, True))
    valid = inputs["attention_mask"].bool()
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-4, rtol=1e-4)
    for step, (mine, other) in enumerate(zip(found["hidden_states"], expected.hidden_states, strict=True)):
        for a, b in zip(mine, other, strict=True):
            keep = valid if step == 0 else slice(None)
            torch.testing.assert_close(a[keep], b[keep], atol=1e-4, rtol=1e-4)
    for step, (mine, other) in enumerate(zip(found.attentions, expected.attentions, strict=True)):
        for a, b in zip(mine, other, strict=True):
            a, b = (x.transpose(1, 2)[valid] if step == 0 else x for x in (a, b))
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


GOLDEN = {
    "greedy": ({}, [[42, 21, 7, 62, 9, 2], [52, 56, 5, 53, 62, 48]]),
    "repetition penalty": ({"repetition_penalty": 1.3}, [[42, 21, 30, 62, 9, 2], [52, 56, 5, 53, 62, 48]]),
    "ngram": ({"no_repeat_ngram_size": 2}, [[42, 21, 7, 62, 9, 2], [52, 56, 5, 53, 62, 48]]),
    "beams": ({"num_beams": 3}, [[42, 21, 30, 62, 55, 2], [6, 10, 5, 53, 62, 48]]),
}


@pytest.mark.parametrize(("options", "expected"), GOLDEN.values(), ids=GOLDEN)
def test_golden_rows(spec_twins, spec_inputs, options, expected):
    """The published fixture."""
    out = generate(spec_twins[1], **spec_inputs, max_new_tokens=6, pad_token_id=0, **options)
    assert out[:, spec_inputs["input_ids"].shape[1] :].tolist() == expected


def test_prompt_lookup(random_twins, make_inputs):
    inputs = make_inputs([[5, 6, 7, 5, 6, 9, 60, 5, 6]])
    options = {"return_dict_in_generate": False, "output_scores": False}
    expected, found = both(random_twins, inputs, prompt_lookup_num_tokens=3, max_new_tokens=20, **options)
    assert found.tolist() == expected.tolist()


def test_max_length_of_text_counts_as_the_reference(random_twins, make_inputs):
    inputs = make_inputs([[5, 6, 7], [8, 9, 10, 11, 12], [13]])
    expected, found = both(random_twins, inputs, max_new_tokens=None, max_length=12, eos_token_id=None)
    assert found.sequences.tolist() == expected.sequences.tolist()


def test_the_default_length(random_twins, make_inputs):
    theirs, ours = random_twins
    inputs = make_inputs([[5, 60, 7]])
    with pytest.warns(UserWarning, match="max_new_tokens"):
        expected = theirs.generate(**inputs, do_sample=False)
    with pytest.warns(UserWarning, match="Neither max_new_tokens nor max_length is set: at most 20 new tokens come"):
        found = generate(ours, **inputs)
    assert found.tolist() == expected.tolist()
