"""generate() from embeddings and from a cache, the shapes of what it returns, -1 as no end: as in transformers."""

import pytest
import torch

from kit.tiny import tiny_model
from kit.twins import batch, twins
from qwen2_audio.errors import ConfigError, PromptError

GREEDY = {"do_sample": False, "return_dict_in_generate": True, "output_scores": True, "eos_token_id": -1}


@pytest.fixture(scope="module")
def pair():
    return twins()


@pytest.fixture(scope="module")
def model():
    return tiny_model(noise=0.2)


def embedded(model, inputs):
    """The embeddings of a batch, clips included."""
    with torch.no_grad():
        return model.embed_prompt(**inputs).inputs_embeds


# Embeddings


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}])
def test_from_embeddings_as_the_reference(pair, options):
    theirs, ours = pair
    inputs = batch()
    embeds, mask = embedded(ours, inputs), inputs["attention_mask"]
    options = options | {"max_new_tokens": 5, "do_sample": False}
    expected = theirs.generate(inputs_embeds=embeds, attention_mask=mask, eos_token_id=None, **options)
    found = ours.generate(inputs_embeds=embeds, attention_mask=mask, eos_token_id=-1, **options)
    assert found.tolist() == expected.tolist()
    assert found.shape == (2, 5)
    with_ids = ours.generate(inputs["input_ids"], inputs_embeds=embeds, attention_mask=mask, eos_token_id=-1, **options)
    assert torch.equal(with_ids, torch.cat((inputs["input_ids"], found), 1))
    assert torch.equal(ours.generate(**inputs, eos_token_id=-1, **options), with_ids)


def test_lengths_from_embeddings_alone(pair):
    theirs, ours = pair
    embeds = torch.randn(1, 6, 32)
    for options in ({"max_length": 10}, {"max_new_tokens": 3}, {"max_length": 12, "min_length": 9}):
        expected = theirs.generate(inputs_embeds=embeds, do_sample=False, eos_token_id=7, pad_token_id=0, **options)
        found = ours.generate(inputs_embeds=embeds, do_sample=False, eos_token_id=7, pad_token_id=0, **options)
        assert found.tolist() == expected.tolist(), options


@pytest.mark.filterwarnings("ignore:Passing `:UserWarning")  # the reference says so
def test_penalties_see_no_prompt_where_there_are_embeddings_alone(pair):
    theirs, ours = pair
    embeds = torch.randn(1, 6, 32)
    options = {"max_new_tokens": 8, "do_sample": False, "repetition_penalty": 3.0, "no_repeat_ngram_size": 2}
    expected = theirs.generate(inputs_embeds=embeds, eos_token_id=None, **options)
    assert ours.generate(inputs_embeds=embeds, eos_token_id=-1, **options).tolist() == expected.tolist()


def test_penalties_count_new_tokens_of_a_padded_row_too(model):
    embeds, mask = torch.randn(2, 6, 32), torch.tensor([[1] * 6, [0] * 4 + [1] * 2])
    options = {"max_new_tokens": 8, "eos_token_id": -1, "no_repeat_ngram_size": 1}
    both = model.generate(inputs_embeds=embeds, attention_mask=mask, **options)
    alone = model.generate(inputs_embeds=embeds[1:, 4:], **options)
    assert torch.equal(both[1:], alone)
    assert len(set(both[1].tolist())) == 8


def test_clips_beside_embeddings_are_said_to_be_ignored(model):
    inputs = batch()
    embeds = embedded(model, inputs)
    with pytest.warns(UserWarning, match="input_features have no effect beside inputs_embeds"):
        model.generate(inputs_embeds=embeds, **inputs, max_new_tokens=1)


# A cache


@pytest.mark.parametrize("with_clips", [False, True])
def test_from_the_cache_of_an_earlier_call(model, with_clips):
    inputs = batch()
    whole = model.generate(**inputs, **GREEDY, max_new_tokens=6)
    first = model.generate(**inputs, **GREEDY, max_new_tokens=4)
    again = {
        "input_ids": first.sequences,
        "attention_mask": torch.cat((inputs["attention_mask"], torch.ones(2, 4, dtype=torch.long)), 1),
    }
    again |= {name: inputs[name] for name in ("input_features", "feature_attention_mask") if with_clips}
    calls = []
    handle = model.language_model.model.norm.register_forward_hook(lambda m, a, out: calls.append(out.shape[1]))
    second = model.generate(**again, **GREEDY, past_key_values=first.past_key_values, max_new_tokens=2)
    handle.remove()
    assert calls == [1, 1]  # nothing of the prompt is computed again
    assert torch.equal(second.sequences, whole.sequences)
    for found, expected in zip(first.scores + second.scores, whole.scores, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for found, expected in zip(second.past_key_values.layers, whole.past_key_values.layers, strict=True):
        torch.testing.assert_close(found.keys, expected.keys, atol=1e-5, rtol=1e-5)


def test_a_conversation_goes_on_with_new_text_and_a_new_clip(model):
    """The second question's clip is encoded, that of the first is in the cache."""
    one = {name: tensor[:1] for name, tensor in batch().items()}
    one["input_ids"], one["attention_mask"] = one["input_ids"][:, 2:], one["attention_mask"][:, 2:]
    first = model.generate(**one, **GREEDY, max_new_tokens=3)
    question = torch.tensor([[5, *[63] * 9, 6]])
    ids = torch.cat((first.sequences, question), 1)
    features = torch.randn(1, 8, 60)
    mask = torch.tensor([[1] * 37 + [0] * 23])
    both = {
        "input_features": torch.cat((one["input_features"], features)),
        "feature_attention_mask": torch.cat((one["feature_attention_mask"], mask)),
    }
    expected = model.generate(ids, **both, **GREEDY, max_new_tokens=4)
    found = model.generate(
        ids,
        input_features=features,
        feature_attention_mask=mask,
        past_key_values=first.past_key_values,
        **GREEDY,
        max_new_tokens=4,
    )
    assert torch.equal(found.sequences, expected.sequences)


def test_what_does_not_go_with_a_cache(model):
    inputs = batch()
    first = model.generate(**inputs, **GREEDY, max_new_tokens=3)
    cache, ids = first.past_key_values, first.sequences
    for options, sentence in (
        ({"input_ids": ids[:, :-1]}, "hold 22 positions of 2 prompts, and the inputs are 2 prompts of 22 tokens"),
        ({"input_ids": ids[:1]}, "hold 22 positions of 2 prompts, and the inputs are 1 prompts of 23 tokens"),
        ({"input_ids": ids, "attention_mask": torch.tensor([[1] * 22 + [0]] * 2)}, "must be padded on the left"),
    ):
        with pytest.raises(PromptError, match=sentence):
            model.generate(**options, past_key_values=cache, max_new_tokens=1)
    with pytest.raises(ConfigError, match="past_key_values come with use_cache=False"):
        model.generate(ids, past_key_values=cache, use_cache=False, max_new_tokens=1)
    with pytest.raises(ConfigError, match="past_key_values is a tuple; expected a KVCache"):
        model.generate(ids, past_key_values=(1,), max_new_tokens=1)


# What comes back


def test_states_have_the_width_of_the_prompt(pair):
    """Every row of the batch is padded: those columns are dropped from the computation, but not from what is asked."""
    theirs, ours = pair
    inputs = batch()
    options = {"max_new_tokens": 3, "output_hidden_states": True, "output_attentions": True}
    expected = theirs.generate(**inputs, **(GREEDY | {"eos_token_id": None}), **options)
    found = ours.generate(**inputs, **GREEDY, **options)
    assert torch.equal(found.sequences, expected.sequences)
    valid = inputs["attention_mask"].bool()
    for name in ("hidden_states", "attentions"):
        for mine, reference in zip(getattr(found, name), getattr(expected, name), strict=True):
            assert [layer.shape for layer in mine] == [layer.shape for layer in reference]
    for mine, reference in zip(found.hidden_states[0], expected.hidden_states[0], strict=True):
        torch.testing.assert_close(mine[valid], reference[valid], atol=1e-4, rtol=1e-4)
    for mine, reference in zip(found.hidden_states[1], expected.hidden_states[1], strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-4, rtol=1e-4)
    assert found.past_key_values.length == expected.past_key_values.get_seq_length() == 22
    assert len(found.past_key_values) == len(expected.past_key_values) == 2


def test_columns_of_padding_cost_nothing_where_only_tokens_are_asked(model):
    widths = []
    handle = model.language_model.model.norm.register_forward_hook(lambda m, a, out: widths.append(out.shape[1]))
    model.generate(**batch(), max_new_tokens=1)
    handle.remove()
    assert widths == [18]


@pytest.mark.parametrize("options", [{}, {"num_beams": 3, "length_penalty": 0.5}, {"num_beams": 2, "eos_token_id": 9}])
@pytest.mark.parametrize("normalize", [False, True])
def test_transition_scores(pair, options, normalize):
    theirs, ours = pair
    out = ours.generate(**batch(), **(GREEDY | {"pad_token_id": 0} | options), max_new_tokens=5)
    beams = out.beam_indices
    found = ours.compute_transition_scores(out.sequences, out.scores, beams, normalize_logits=normalize)
    expected = theirs.compute_transition_scores(out.sequences, out.scores, beams, normalize_logits=normalize)
    torch.testing.assert_close(found, expected)
    if beams is not None and not normalize:
        lengths = (beams >= 0).sum(1)
        penalised = found.sum(1) / lengths ** options.get("length_penalty", 1.0)
        torch.testing.assert_close(penalised, out.sequences_scores, atol=1e-5, rtol=1e-5)


# Options


def test_no_end(model):
    ends = model.generate(**batch(), max_new_tokens=1, eos_token_id=-1)[0, -1].item()
    options = {"max_new_tokens": 5, "pad_token_id": -1}
    assert model.generate(**batch(), **options, eos_token_id=-1).shape == (2, 25)
    banned = {"min_new_tokens": 3, "bad_words_ids": [[ends]]}
    assert model.generate(**batch(), **options, **banned, eos_token_id=-1).shape == (2, 25)
    for option in ({"eos_token_id": -2}, {"eos_token_id": [-1]}, {"pad_token_id": -2}):
        with pytest.raises(ConfigError, match="expected a token id"):
            model.generate(**batch(), max_new_tokens=1, **option)


def test_no_end_bans_no_token(model):
    """An id of -1 would be the vocabulary's last."""
    free = model.generate(**batch(), **(GREEDY | {"output_logits": True}), max_new_tokens=2, min_new_tokens=2)
    assert torch.equal(free.scores[0], free.logits[0])


def test_positions_of_the_callers(pair):
    theirs, ours = pair
    inputs = batch()
    counted = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    options = {"max_new_tokens": 5, "do_sample": False}
    plain = ours.generate(**inputs, **options, eos_token_id=-1)
    assert torch.equal(ours.generate(**inputs, position_ids=counted, **options, eos_token_id=-1), plain)
    expected = theirs.generate(**inputs, position_ids=counted + 40, **options, eos_token_id=None)
    assert torch.equal(ours.generate(**inputs, position_ids=counted + 40, **options, eos_token_id=-1), expected)
    stretched, options = counted * 3, options | {"return_dict_in_generate": True, "output_scores": True}
    expected = theirs.generate(**inputs, position_ids=stretched, **options, eos_token_id=None)
    found = ours.generate(**inputs, position_ids=stretched, **options, eos_token_id=-1)
    for mine, reference in zip(found.scores, expected.scores, strict=True):  # the second one on is of new positions
        torch.testing.assert_close(mine, reference, atol=1e-4, rtol=1e-4)


def test_other_names(model):
    inputs = batch()
    ids = inputs.pop("input_ids")
    plain = model.generate(ids, **inputs, max_new_tokens=2)
    assert torch.equal(model.generate(inputs=ids, **inputs, max_new_tokens=2, logits_to_keep=0), plain)
    with pytest.raises(PromptError, match="input_ids and inputs, its other name, are both given"):
        model.generate(ids, inputs=ids)
