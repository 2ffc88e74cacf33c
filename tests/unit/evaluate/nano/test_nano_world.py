"""What is said in nano's world: facts that are true, sentences of which the test has its own."""

import numpy as np
import pytest

from qwen2_audio.evaluate.nano.world.commands import COMMANDS
from qwen2_audio.evaluate.nano.world.facts import CAPITALS, FACTS, FAMILIES
from qwen2_audio.evaluate.nano.world.numbers import ONES, words
from qwen2_audio.evaluate.nano.world.sentences import SENTENCES
from qwen2_audio.evaluate.nano.world.speakers import COMMAND_FAMILIES, command, statement, utterance
from qwen2_audio.evaluate.nano.world.utterance import plain, split_of

VALUES = {words(n): n for n in range(100)}


def test_numbers_are_words():
    assert [words(n) for n in (0, 7, 19, 20, 35, 99)] == [
        "zero",
        "seven",
        "nineteen",
        "twenty",
        "thirty five",
        "ninety nine",
    ]
    assert len(VALUES) == 100
    with pytest.raises(ValueError, match="100 is not between 0 and 99"):
        words(100)


def test_every_sum_is_right():
    for fact in FAMILIES["arithmetic"]:
        said, result = fact.answer.rstrip(".").lower().split(" is ")
        one, sign, two = said.split(" ")
        assert VALUES[result] == VALUES[one] + (VALUES[two] if sign == "plus" else -VALUES[two])
        assert all(said in question for question in fact.questions)
    assert len(FAMILIES["arithmetic"]) == 11 * 11 + 66
    assert len(ONES) == 20


def test_no_question_has_two_answers():
    answers = {}
    for fact in FACTS:
        for question in fact.questions:
            assert answers.setdefault(plain(question), fact.answer) == fact.answer
    assert answers["what is the capital of france"] == "The capital of France is Paris."
    assert len(set(CAPITALS.values())) == len(CAPITALS)


def test_splits_share_no_sentence_and_all_of_them_occur():
    found = {}
    for split in ("train", "dev", "test"):
        rng = np.random.default_rng(1)
        found[split] = {plain(make(rng, split).text) for make in (command, statement) for _ in range(300)}
        assert all(split_of(text) == split for text in found[split])
    assert not found["train"] & found["test"]
    assert not found["train"] & found["dev"]


@pytest.mark.parametrize("make", [*COMMANDS, *SENTENCES])
def test_answers_repeat_what_matters(make):
    rng = np.random.default_rng(0)
    for _ in range(40):
        said = make(rng)
        assert said.family == make.__name__
        assert said.text[0].isupper() and said.text[-1] in ".?"
        assert said.answer[-1] == "."
        if make in COMMANDS:
            kept = set(plain(said.text).split()) & set(plain(said.answer).split())
            assert len(kept) >= 3


def test_the_world_is_a_few_hundred_words():
    rng = np.random.default_rng(2)
    said = [utterance(rng, "train") for _ in range(8000)]
    vocabulary = {word for one in said for word in plain(one.text).split()}
    assert 200 < len(vocabulary) < 420
    families = {one.family for one in said}
    assert families == set(FAMILIES) | COMMAND_FAMILIES | {make.__name__ for make in SENTENCES}
