import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qwen2_audio.errors import ConfigError
from qwen2_audio.generate.generate import generate
from qwen2_audio.generate.lookup import propose_tokens


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([1, 2, 3, 4, 9, 1, 2], [3, 4]),
        ([2, 7, 1, 2, 8, 1, 2], [8, 1]),  # two tokens match better than one, though later
        ([1, 2, 5, 1, 2, 6, 1, 2], [5, 1]),  # the earliest
        ([1, 2, 0, 9, 1, 2], []),  # an end of text is not guessed
        ([1, 2, 3], []),
        ([1], []),
        ([4, 4], [4]),
    ],
)
def test_guess(ids, expected):
    assert propose_tokens(ids, 2, 2, eos_ids=[0]) == expected


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.integers(0, 5), st.integers(1, 4))
def test_a_guess_followed_its_match_before(ids, count, longest):
    found = propose_tokens(ids, count, longest, eos_ids=[])
    text = ",".join(map(str, ids))
    assert len(found) <= count
    assert not found or ",".join(map(str, [ids[-1], *found])) in text


def test_right_guesses_save_steps(counting):
    prompt = torch.tensor([[3, 4, 5, 6, 7, 8, 9, 20, 3, 4]])
    out = generate(counting, prompt, max_new_tokens=6, prompt_lookup_num_tokens=5)
    assert out[0, 10:].tolist() == [5, 6, 7, 8, 9, 10]
    assert [c["new"] for c in counting.language_model.calls] == [10, 5]


def test_one_prompt_only(counting):
    with pytest.raises(ConfigError, match="works on one prompt at a time and got 2; call generate"):
        generate(counting, torch.tensor([[1], [2]]), max_new_tokens=3, prompt_lookup_num_tokens=2)
