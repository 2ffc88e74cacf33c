import pytest
import torch

from qwen2_audio.api.answer import Answers
from qwen2_audio.engine.answer import Answer
from qwen2_audio.engine.settings import Limit

END = 999


@pytest.fixture
def tokenizer(tiny_chat):
    return tiny_chat.processor.tokenizer


def feed(answers, rows):
    """Give the rows token by token, as `generate` does; which are finished after each."""
    columns = [[row[step] if step < len(row) else 0 for row in rows] for step in range(max(map(len, rows)))]
    return [answers(torch.tensor([[5, token] for token in column])).tolist() for column in columns]


def test_an_end_of_text_token_stops_and_is_counted(tokenizer):
    answer = Answer(tokenizer, frozenset({END}), ())
    answers = Answers([answer])
    ids = tokenizer.encode("It is a dog.")
    assert feed(answers, [[*ids, END]]) == [[False]] * len(ids) + [[True]]
    assert (answer.text, answer.finish_reason, answer.tokens) == ("It is a dog.", "stop", len(ids) + 1)


def test_a_stop_string_never_shows_and_nothing_comes_after_it(tokenizer):
    seen = []
    answer = Answer(tokenizer, frozenset({END}), ("barks",))
    answers = Answers([answer], on_text=seen.append)
    done = feed(answers, [tokenizer.encode("It barks twice.")])
    assert done[-1] == [True]
    assert answer.text == "".join(seen) == "It "
    assert answer.finish_reason == "stop"


def test_the_beginning_of_a_stop_string_comes_out_when_nothing_follows(tokenizer):
    seen = []
    answer = Answer(tokenizer, frozenset({END}), ("dogs",))
    answers = Answers([answer], on_text=seen.append)
    feed(answers, [[*tokenizer.encode("a dog"), END]])
    assert answer.text == "".join(seen) == "a dog"


def test_half_a_character_is_held_back_until_it_is_whole(tokenizer):
    seen = []
    answers = Answers([Answer(tokenizer, frozenset(), ())], on_text=seen.append)
    feed(answers, [tokenizer.encode("a中b")])
    assert "".join(seen) == "a中b"
    assert not any("\ufffd" in piece for piece in seen)


def test_half_a_character_at_the_end_comes_out_as_in_a_decode_of_the_whole(tokenizer):
    ids = tokenizer.encode("a中")[:-1]
    answer = Answer(tokenizer, frozenset(), ())
    answers = Answers([answer])
    feed(answers, [ids])
    answers.end(Limit(len(ids), "length"))
    assert answer.text == tokenizer.decode(ids) == "a\ufffd"


def test_rows_end_by_themselves_and_hear_no_more(tokenizer):
    rows = [Answer(tokenizer, frozenset({END}), ()) for _ in range(2)]
    answers = Answers(rows)
    long = tokenizer.encode("thunder and rain")
    feed(answers, [[*tokenizer.encode("a"), END], long])
    answers.end(Limit(len(long), "context"))
    assert [row.text for row in rows] == ["a", "thunder and rain"]
    assert [row.finish_reason for row in rows] == ["stop", "context"]


def test_the_reason_of_an_unfinished_row(tokenizer):
    def reason(limit, cancel=False):
        answer = Answer(tokenizer, frozenset(), ())
        answers = Answers([answer])
        feed(answers, [tokenizer.encode("a dog")])
        if cancel:
            answers.cancel()
            assert answers(torch.tensor([[5, 6]])).tolist() == [True]
        answers.end(limit)
        return answer.finish_reason

    count = len(tokenizer.encode("a dog"))
    assert reason(Limit(count, "length")) == "length"
    assert reason(Limit(count + 1, "length")) == "deadline"
    assert reason(Limit(count, "length"), cancel=True) == "cancelled"
