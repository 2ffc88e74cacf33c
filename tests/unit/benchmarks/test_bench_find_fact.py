"""long.find_fact: what counts as found."""

import numpy as np

from benchmarks.long import find_fact
from benchmarks.long.recording import RATE, Recording
from qwen2_audio.types import Completion, Part, Usage

TEXTS = ["Ben met Anna.", "It will be cold.", "Ben met Anna.", "I am Tom."]
MADE = Recording(np.zeros(40 * RATE, np.float32), TEXTS, [(n * 10 * RATE + RATE, n * 10 * RATE + 3 * RATE) for n in range(4)])


def parts(*texts):
    return tuple(Part(10.0 * n, 10.0 * n + 10, text) for n, text in enumerate(texts))


def test_a_fact_is_said_once():
    assert find_fact.said_once(TEXTS) == [1, 3]


def test_found_is_what_its_part_says_and_no_other_claims():
    assert find_fact.is_found(parts("Who?", "It will be cold", "Nothing.", "I am Tom."), MADE, 1)
    assert not find_fact.is_found(parts("Who?", "It will be old.", "Nothing.", "I am Tom."), MADE, 1)
    assert not find_fact.is_found(parts("It will be cold.", "It will be cold.", "", "I am Tom."), MADE, 1)
    assert not find_fact.is_found(parts("It will be cold.", "Nothing.", "", "I am Tom."), MADE, 1)


def test_the_row_counts_what_is_right_alone(monkeypatch):
    class Chat:
        def batch(self, conversations, params):
            assert len(conversations) == 2
            return [Completion(text, "stop", Usage(1, 1, 1)) for text in ("It will be cold.", "I am Tim.")]

        def chat(self, messages, params, *, long):
            assert long == "parts"
            return Completion("", "stop", Usage(1, 1, 1), parts=parts("Who?", "It will be cold.", "", "I am Tom."))

    monkeypatch.setattr(find_fact, "record", lambda seconds, seed: MADE)
    (row,) = find_fact.find_fact(Chat())
    assert (row.name, row.value, row.unit, row.limit) == ("long.find_fact", 100.0, "% right", 80.0)
    assert row.note == "1 of 1 that are right alone, of 2 facts"
