import pytest
import torch

from qwen2_audio.errors import PromptError
from qwen2_audio.model.merge import find_slots, padded_left, position_ids_of

A, PAD = 63, 0


def slots(ids, mask, tokens, labels=None):
    ids, mask = torch.tensor(ids), torch.tensor(mask)
    return find_slots(ids, mask, labels, tokens, audio_id=A, pad_id=PAD, ignore_index=-100)


def test_an_expanded_prompt_is_left_as_it_is():
    found = slots([[5, A, A, 7], [A, 1, A, A]], [[1] * 4] * 2, [2, 1, 2])
    assert found.input_ids.tolist() == [[5, A, A, 7], [A, 1, A, A]]
    assert found.clip_rows == [0, 1, 1]


def test_a_legacy_prompt_grows_on_its_padded_side():
    found = slots([[5, A, 7], [0, A, 8]], [[1, 1, 1], [0, 1, 1]], [3, 2])
    assert found.input_ids.tolist() == [[5, A, A, A, 7], [PAD, 0, A, A, 8]]
    assert found.attention_mask.tolist() == [[1] * 5, [0, 0, 1, 1, 1]]
    found = slots([[5, A, 7], [A, 8, 0]], [[1, 1, 1], [1, 1, 0]], [3, 2])
    assert found.input_ids.tolist() == [[5, A, A, A, 7], [A, A, 8, 0, PAD]]
    assert found.attention_mask.tolist() == [[1] * 5, [1, 1, 1, 0, 0]]
    assert found.clip_rows == [0, 1]


def test_legacy_labels_are_never_on_audio():
    labels = torch.tensor([[5, 9, 7]])
    assert slots([[5, A, 7]], [[1, 1, 1]], [3], labels).labels.tolist() == [[5, -100, -100, -100, 7]]


def test_clips_of_one_token_are_the_same_either_way():
    assert slots([[5, A, 7, A]], [[1] * 4], [1, 1]).input_ids.tolist() == [[5, A, 7, A]]


def test_counts_that_do_not_fit_are_refused_with_both_numbers():
    with pytest.raises(PromptError, match=r"do not match, tokens: 3, features: 7. 2 clips need either 7"):
        slots([[5, A, A, A]], [[1] * 4], [3, 4])


def test_a_mismatch_that_cancels_over_the_batch_is_still_found():
    """The reference checks the sum only, and would put half of clip 1 into row 2."""
    with pytest.raises(
        PromptError, match="Clip 1 has 3 audio tokens, but the prompt's placeholders are not in one run"
    ):
        slots([[A, A, 1], [A, A, A]], [[1] * 3] * 2, [3, 2])


def test_a_clip_too_short_to_be_heard_is_refused():
    with pytest.raises(PromptError, match="Clip 2 gives 0 audio tokens"):
        slots([[5, A, A]], [[1] * 3], [4, 0])


def test_padding_on_both_sides_is_refused():
    with pytest.raises(PromptError, match="both sides"):
        padded_left(torch.tensor([[0, 1, 1], [1, 1, 0]]))


def test_positions_count_valid_tokens():
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]])
    assert position_ids_of(mask).tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 0, 0]]
