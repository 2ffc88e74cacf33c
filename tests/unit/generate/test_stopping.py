import time

import pytest
import torch

from qwen2_audio.generate.config import GenerationConfig
from qwen2_audio.generate.stopping import EndOfText, MaxLength, MaxTime, StopStrings, build, met


def ends(letters, strings, *texts):
    return StopStrings(letters, strings)(torch.tensor([letters.encode(t) for t in texts])).tolist()


def test_a_stop_string_ends_with_the_newest_token(letters):
    assert ends(letters, "bcd", "abcd", "bcde", "abdc") == [True, False, False]


def test_several_stop_strings(letters):
    assert ends(letters, ["zz", "d"], "abcd", "azzb") == [True, False]


class SyllableTokenizer:
    pieces = ("he", "llo wo", "rld", "�")

    def decode(self, ids):
        return "".join(self.pieces[i] for i in ids)


@pytest.mark.parametrize(
    ("string", "ids", "stops"),
    [
        ("lo", [0, 1], True),  # inside the newest token: what follows in it stays
        ("ell", [0, 1], True),  # begins in an earlier one
        ("lo", [0, 1, 2], False),  # was complete one token ago
        ("world", [0, 1, 2], True),
        ("hello world", [0, 1, 2], True),
    ],
)
def test_stop_strings_across_tokens(string, ids, stops):
    assert StopStrings(SyllableTokenizer(), string)(torch.tensor([ids])).tolist() == [stops]


def test_a_character_that_is_completed_by_the_newest_token():
    class Bytes:
        def decode(self, ids):
            return bytes(ids).decode("utf-8", errors="replace")

    accent = list("né".encode())
    stop = StopStrings(Bytes(), "né")
    assert stop(torch.tensor([accent])).tolist() == [True]
    assert stop(torch.tensor([accent[:-1]])).tolist() == [False]


def test_end_of_text_looks_at_the_newest_token_only():
    assert EndOfText([2, 3])(torch.tensor([[1, 3], [3, 1], [2, 2]])).tolist() == [True, False, True]


def test_max_time():
    ids = torch.zeros(2, 1, dtype=torch.long)
    assert MaxTime(10, time.monotonic())(ids).tolist() == [False, False]
    assert MaxTime(10, time.monotonic() - 11)(ids).tolist() == [True, True]


def test_a_users_criterion_of_the_same_class_replaces_the_built_in_one(letters):
    mine, other = MaxLength(3), lambda ids, scores: False
    config = GenerationConfig(eos_token_id=5, stop_strings="x", max_time=3.0)
    criteria = build(config, 9, time.monotonic(), letters, [other, mine])
    assert [type(c) for c in criteria[:4]] == [MaxLength, MaxTime, StopStrings, EndOfText]
    assert criteria[0] is mine
    assert criteria[4:] == [other]


def test_criteria_may_answer_with_one_bool_or_a_row_each():
    ids = torch.zeros(3, 2, dtype=torch.long)
    assert met([lambda i, s: torch.tensor([True, False, False]), lambda i, s: False], ids).tolist() == [
        True,
        False,
        False,
    ]
    assert met([lambda i, s: True], ids).tolist() == [True] * 3


def test_the_end_of_text_is_found_without_a_transfer(monkeypatch):
    """Asked after every token: making a tensor of the ids would be a copy to the GPU, and a wait, each time."""
    ids = torch.tensor([[1, 2], [1, 3], [1, 4]])
    monkeypatch.setattr(torch, "tensor", None)
    assert EndOfText([4, 2])(ids).tolist() == [True, False, True]
