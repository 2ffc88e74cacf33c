"""Ways to ask for the same answer that must give the same tokens."""

import threading

import pytest
import torch

from kit.tiny import AUDIO_ID, tiny_config, tiny_model
from qwen2_audio.audio.mel import num_audio_tokens
from qwen2_audio.generate.generate import generate
from qwen2_audio.generate.streamers import TextIteratorStreamer

PAD, EOS = 0, 2
# Prompts: ids below 37, clips as their number of mel frames (37 to 60).
ROWS = [[5, 60, 6, 41, 7], [8, 9], [10, 38, 11, 12, 13, 55, 14], [15, 16, 17, 52]]
SEARCHES = {
    "greedy": {},
    "penalised": {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "min_new_tokens": 5},
    "beams": {"num_beams": 3},
    "beams, all answers": {"num_beams": 3, "num_return_sequences": 3, "length_penalty": 0.5, "early_stopping": True},
}
every_search = pytest.mark.parametrize("options", SEARCHES.values(), ids=SEARCHES)


@pytest.fixture(scope="module")
def model():
    return tiny_model(tiny_config(text={"max_position_embeddings": 256}), seed=3, noise=0.2)


def features(frames):
    """One clip's log-mel [8, 60], the same wherever the clip stands."""
    return torch.randn(8, 60, generator=torch.Generator().manual_seed(frames))


def inputs_of(rows, side="left", legacy=False):
    """A padded batch; `legacy` leaves one placeholder a clip."""
    clips = [n for row in rows for n in row if n > 36]
    count = (lambda n: 1) if legacy else num_audio_tokens
    ids = [[t for n in row for t in ([AUDIO_ID] * count(n) if n > 36 else [n])] for row in rows]
    width = max(map(len, ids))
    fill = [[PAD] * (width - len(row)) for row in ids]
    padded = [f + r if side == "left" else r + f for f, r in zip(fill, ids, strict=True)]
    inputs = {"input_ids": torch.tensor(padded), "attention_mask": (torch.tensor(padded) != PAD).long()}
    if clips:
        inputs["input_features"] = torch.stack([features(n) for n in clips])
        inputs["feature_attention_mask"] = (torch.arange(60)[None] < torch.tensor(clips)[:, None]).int()
    return inputs


def answers(model, inputs, **options):
    """The new tokens of each row, up to the end of text."""
    options = {"max_new_tokens": 12, "eos_token_id": EOS, "pad_token_id": PAD, **options}
    out = generate(model, **inputs, **options)
    rows = out[:, inputs["input_ids"].shape[1] :].tolist()
    return [row[: row.index(EOS) + 1] if EOS in row else row for row in rows]


@every_search
def test_batched_equals_alone(model, options):
    batched = answers(model, inputs_of(ROWS), **options)
    alone = [answer for row in ROWS for answer in answers(model, inputs_of([row]), **options)]
    assert batched == alone
    assert len({tuple(a) for a in alone}) == len(alone), "all answers are different, or this proves little"


@every_search
def test_padded_right_equals_padded_left(model, options):
    assert answers(model, inputs_of(ROWS, "right"), **options) == answers(model, inputs_of(ROWS), **options)


@every_search
def test_cached_equals_computed_anew(model, options):
    assert answers(model, inputs_of(ROWS), **options) == answers(model, inputs_of(ROWS), use_cache=False, **options)


@every_search
@pytest.mark.parametrize("side", ["left", "right"])
def test_legacy_prompts_equal_expanded_ones(model, options, side):
    legacy = inputs_of(ROWS, side, legacy=True)
    assert answers(model, legacy, **options) == answers(model, inputs_of(ROWS, side), **options)


def test_legacy_prompts_come_back_as_given(model):
    inputs = inputs_of(ROWS, legacy=True)
    out = generate(model, **inputs, max_new_tokens=3, pad_token_id=PAD)
    assert torch.equal(out[:, :-3], inputs["input_ids"])


def test_max_length_counts_the_same_for_legacy_and_expanded(model):
    for rows in ([[5, 60, 6]], ROWS):
        expanded = answers(model, inputs_of(rows), max_new_tokens=None, max_length=14)
        assert answers(model, inputs_of(rows, legacy=True), max_new_tokens=None, max_length=14) == expanded
        assert max(map(len, expanded)) == 14 - max(len(row) for row in rows)


def test_a_clip_of_one_token(model):
    """It looks like a legacy prompt, and the reference fails on it."""
    inputs = inputs_of([[5, 60, 6]])
    inputs["feature_attention_mask"] = (torch.arange(60)[None] < 5).int()
    inputs["input_ids"] = torch.tensor([[5, AUDIO_ID, 6]])
    inputs["attention_mask"] = torch.ones(1, 3)
    assert len(answers(model, inputs)[0]) > 0


@pytest.mark.parametrize("row", [[5, 6, 7, 5, 6, 7, 5, 6], ROWS[0]])
@pytest.mark.parametrize("guesses", [1, 4, 30])
@pytest.mark.parametrize("options", [{}, {"no_repeat_ngram_size": 3}, {"do_sample": True, "seed": 1}])
def test_lookup_equals_plain_decoding(model, row, guesses, options):
    options = {**options, "max_new_tokens": 40, "eos_token_id": None}
    plain = answers(model, inputs_of([row]), **options)
    for size in (1, 3):
        lookup = {"prompt_lookup_num_tokens": guesses, "max_matching_ngram_size": size}
        assert answers(model, inputs_of([row]), **lookup, **options) == plain


@pytest.mark.parametrize("options", [{}, {"prompt_lookup_num_tokens": 3}, {"num_beams": 2}])
def test_columns_that_are_padding_in_every_row_change_nothing(model, options):
    inputs = inputs_of([ROWS[0], ROWS[0] * 2])
    inputs = {key: value[:2] if "feature" in key else value[:1] for key, value in inputs.items()}
    assert not inputs["attention_mask"].all()
    assert answers(model, inputs, **options) == answers(model, inputs_of([ROWS[0]]), **options)


def test_samples_of_one_prompt_equal_a_batch_of_it(model):
    options = {"do_sample": True, "seed": 4, "temperature": 2.0}
    several = answers(model, inputs_of([ROWS[0]]), num_return_sequences=3, **options)
    assert several == answers(model, inputs_of([ROWS[0]] * 3), **options)
    assert len({tuple(a) for a in several}) == 3


def test_clips_are_encoded_once(model, monkeypatch):
    seen = []
    encode = model.audio_tower.encode
    monkeypatch.setattr(model.audio_tower, "encode", lambda f, n: seen.append(len(f)) or encode(f, n))
    generate(model, **inputs_of(ROWS), max_new_tokens=4, num_beams=3, pad_token_id=PAD)
    generate(model, **inputs_of(ROWS), max_new_tokens=4, use_cache=False, pad_token_id=PAD)
    assert seen == [5, 5]


class Words:
    def decode(self, ids, **_):
        return "".join(f"w{i} " for i in ids)


def test_streamed_equals_whole(model):
    inputs = inputs_of([ROWS[0]])
    streamer = TextIteratorStreamer(Words(), skip_prompt=True, timeout=20)
    options = {"max_new_tokens": 12, "pad_token_id": PAD, "streamer": streamer}
    thread = threading.Thread(target=generate, args=(model,), kwargs={**inputs, **options})
    thread.start()
    text = "".join(streamer)
    thread.join()
    assert text == Words().decode(answers(model, inputs, eos_token_id=None)[0])


def test_a_cache_that_grows(model):
    """More new tokens than the cache has room for at first."""
    options = {"max_new_tokens": 230, "eos_token_id": None}
    out = answers(model, inputs_of([[5, 6]]), **options)
    assert out == answers(model, inputs_of([[5, 6]]), use_cache=False, **options)


def test_beams_reach_at_least_the_greedy_score(model):
    def score(tokens):
        ids = torch.tensor([[8, 9, *tokens]])
        log_p = model(input_ids=ids).logits.log_softmax(-1)[0]
        return float(sum(log_p[1 + i, t] for i, t in enumerate(tokens)))

    with torch.no_grad():
        greedy = answers(model, inputs_of([[8, 9]]), max_new_tokens=6, eos_token_id=None)[0]
        options = {"num_beams": 8, "max_new_tokens": 6, "eos_token_id": None, "return_dict_in_generate": True}
        best = generate(model, **inputs_of([[8, 9]]), **options)
        found = best.sequences[0, 2:].tolist()
        assert score(found) >= score(greedy)
        assert float(best.sequences_scores[0]) == pytest.approx(score(found) / 6, abs=1e-5)
