import pytest
import torch

from qwen2_audio.errors import ContextLengthError
from qwen2_audio.generate.config import GenerationConfig
from qwen2_audio.generate.lengths import PromptSize, measure, plan_lengths, warn_of_lengths
from qwen2_audio.generate.options import resolve

A = 31


def sized(rows, padding=0):
    ids = torch.tensor(rows)
    return measure(ids, (ids != padding).long(), A)


def test_text_counts_every_column():
    assert sized([[1, 2, 3], [0, 4, 5]]) == PromptSize(3, 3)


def test_each_run_of_audio_counts_once():
    assert sized([[1, A, A, A, 2, A, A, 3]]) == PromptSize(8, 5)


def test_the_longest_as_counted_decides():
    """The row with the clip has more positions, the other one counts more."""
    assert sized([[0, 1, A, A, A, A], [0, 1, 2, 3, 4, 5]]) == PromptSize(5, 6)


def test_columns_that_are_padding_in_every_row_count():
    assert sized([[0, 0, 1, A, A, A]]) == PromptSize(4, 4)


SIZE = PromptSize(12, 5)


def lengths(context=64, of_model=None, **kwargs):
    return plan_lengths(resolve(of_model, None, kwargs), SIZE, context)


def test_max_new_tokens():
    found = lengths(max_new_tokens=7)
    assert (found.max_new, found.max_length, found.min_length) == (7, 19, 7)


def test_max_length_counts_each_clip_as_one():
    assert lengths(max_length=15).max_new == 10


def test_max_new_tokens_wins_over_max_length():
    assert lengths(max_length=15, max_new_tokens=3).max_new == 3


def test_what_the_caller_asks_wins_over_the_file():
    file = GenerationConfig(max_new_tokens=30)
    assert lengths(of_model=file, max_length=15).max_new == 10
    assert lengths(of_model=file).max_new == 30
    assert lengths(of_model=GenerationConfig(max_length=15)).max_new == 10


def test_the_default_is_twenty():
    assert lengths().max_new == 20


def test_min_length_counts_like_max_length():
    assert lengths(max_length=15, min_length=9).min_length == 16
    assert lengths(max_length=15, min_length=9, min_new_tokens=2).min_length == 14


def test_a_limit_nobody_asked_for_is_lowered_to_what_fits():
    assert lengths(context=20).max_new == 8
    assert lengths(context=20, of_model=GenerationConfig(max_new_tokens=2048)).max_new == 8


def test_a_prompt_longer_than_the_context():
    with pytest.raises(
        ContextLengthError, match="The prompt takes 12 positions, and the model's context holds 12 with"
    ):
        lengths(context=12)


def test_an_answer_that_does_not_fit():
    message = "12 positions and 9 new tokens make 21, and the model's context holds 20; ask for max_new_tokens=8 or"
    with pytest.raises(ContextLengthError, match=message):
        lengths(context=20, max_new_tokens=9)
    with pytest.raises(ContextLengthError, match="12 positions and 20 new tokens make 32"):
        lengths(context=20, max_length=25)


def test_a_prompt_as_long_as_max_length():
    message = r"The prompt counts 5 \(each clip as one\) and max_length is 5, prompt included: nothing is left"
    with pytest.raises(ContextLengthError, match=message):
        lengths(max_length=5)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "Neither max_new_tokens nor max_length is set: at most 20 new tokens come"),
        (
            {"max_new_tokens": 3, "max_length": 15},
            "Both max_new_tokens=3 and max_length=15 are set: max_new_tokens holds",
        ),
        ({"max_new_tokens": 3, "min_new_tokens": 4}, "At least 4 new tokens are asked for, but 3 at most"),
    ],
)
def test_warnings(kwargs, message):
    options = resolve(None, None, kwargs)
    with pytest.warns(UserWarning, match=message) as caught:
        warn_of_lengths(options, plan_lengths(options, SIZE, 64))
    assert len(caught) == 1
