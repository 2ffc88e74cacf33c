"""long.find_fact: what counts as found."""

from types import SimpleNamespace

from benchmarks.long import find_fact
from qwen2_audio.types import Completion, Part, Usage

TEXTS = ["Ben met Anna.", "It will be cold.", "Ben met Anna.", "I am Tom."]
SPANS = [(start * 16_000, (start + 2) * 16_000) for start in (1, 11, 21, 31)]
MADE = SimpleNamespace(samples=[0.0], texts=TEXTS, spans=SPANS, utterances=lambda: ["", "", "", ""])


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
            assert [len(conversation) for conversation in conversations] == [1, 1]
            return [Completion(text, "stop", Usage(1, 1, 1)) for text in ("It will be cold.", "I am Tim.")]

        def chat(self, messages, params, *, long):
            assert long == "parts"
            return Completion("", "stop", Usage(1, 1, 1), parts=parts("Who?", "It will be cold.", "", "I am Tom."))

    monkeypatch.setattr(find_fact, "record", lambda seconds, seed: MADE)
    (row,) = find_fact.rows(SimpleNamespace(chat=Chat(), quick=False, progress=print))
    assert (row.name, row.value, row.unit, row.limit) == ("long.find_fact", 100.0, "% right", 80.0)
    assert row.note == "1 of 1 that are right alone, of 2 facts"
