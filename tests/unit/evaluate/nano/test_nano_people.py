"""What people say to nano: true, answered in one way, each word alone; and words that are far from all of these."""

from collections import Counter

import numpy as np
import pytest

from qwen2_audio.evaluate.nano.speech.strange import unknown_words
from qwen2_audio.evaluate.nano.world import people
from qwen2_audio.evaluate.nano.world.aliens import FOREIGN, HELD_OUT
from qwen2_audio.evaluate.nano.world.facts import FACTS
from qwen2_audio.evaluate.nano.world.hundreds import COUNTING, DATES, SUMS, number
from qwen2_audio.evaluate.nano.world.talk import SELF, SPOKEN, TALK, renewed
from qwen2_audio.evaluate.nano.world.utterance import Utterance, plain, split_of

VALUES = {number(n): n for n in range(101)}
SPLITS = ("train", "dev", "test")


def said(split, kind, count=150):
    rng = np.random.default_rng(5)
    return [people.spoken(split, rng, kind) for _ in range(count)]


def test_numbers_go_to_a_hundred():
    assert number(100) == "one hundred" and number(42) == "forty two" and len(VALUES) == 101
    with pytest.raises(ValueError, match="101 is not between"):
        number(101)


def test_every_sum_and_every_neighbour_is_right():
    for fact in SUMS:
        term, result = fact.answer.rstrip(".").lower().split(" is ")
        sign = " plus " if " plus " in term else " minus "
        one, two = (VALUES[part] for part in term.split(sign))
        assert VALUES[result] == (one + two if sign == " plus " else one - two)
        assert all(term in question.lower() for question in fact.questions)
    for fact in COUNTING:
        one, two = fact.answer.rstrip(".").lower().replace("before", "after").split(" comes after ")
        assert abs(VALUES[one] - VALUES[two]) == 1


def test_no_question_has_two_answers():
    answers = {}
    for fact in (*FACTS, *TALK, *SPOKEN, *SUMS, *COUNTING, *DATES):
        for question in fact.questions:
            assert answers.setdefault(plain(question), renewed(fact.answer)) == renewed(fact.answer), question
    assert answers["who are you"] == SELF and "nano" in SELF and "Qwen2-Audio" in SELF
    assert "clock" in answers["what time is it"]


@pytest.mark.parametrize("kind", list(people.KINDS))
def test_every_kind_is_an_utterance_with_an_answer(kind):
    for one in said("test", kind):
        assert one.text[-1] in ".?" and one.text[0].isupper()
        assert one.answer[-1] in ".!?" and one.family and one.answer == renewed(one.answer)
    assert sum(people.KINDS.values()) == pytest.approx(1)


@pytest.mark.parametrize("kind", ["list", "statement"])
def test_lists_and_statements_of_the_test_are_its_own(kind):
    texts = {split: {plain(one.text) for one in said(split, kind)} for split in SPLITS}
    assert all(split_of(text) == split for split in SPLITS for text in texts[split])
    assert not texts["train"] & texts["test"]


def test_every_word_is_said_alone_with_and_without_an_article():
    everything = [one.text for one in people.words_alone()]
    assert len(everything) == len(set(everything)) == sum(map(len, people.FORMS.values()))
    assert people.FORMS["dog"] == ("Dog.", "A dog.", "The dog.")
    assert people.FORMS["hour"] == ("Hour.", "An hour.", "The hour.")
    assert people.FORMS["milk"] == ("Milk.", "The milk.") and people.FORMS["Monday"] == ("Monday.",)
    words = set(people.WORDS)
    assert {"o'clock", "my", "me", "number", "December", "zero", "living room", "one hundred", "goodbye"} <= words
    heard = {word for text in everything for word in plain(text).split()}
    rng = np.random.default_rng(0)
    sentences = [people.spoken("train", rng) for _ in range(3000)]
    spoken = {word for one in sentences if one.family != "letters" for word in plain(one.text).split()}
    assert spoken <= heard | {"i"}


def test_what_is_no_sentence_is_repeated_and_small_talk_is_answered():
    assert people.alone("Thursday and Tuesday.").answer == "You said Thursday and Tuesday."
    assert people.alone("The dog.").answer == "You said the dog."
    assert people.alone("B C A.").answer == "You said B C A."
    assert people.alone("Hello.").answer == "Hello! How can I help you?"
    assert all(split_of(text) == "train" for text in people.LISTS) and len(people.LISTS) == 800


def test_a_synthesiser_gets_letters_one_by_one_and_sometimes_a_filler():
    assert people.aloud("B C A.") == "B, C, A." and people.aloud("What is it?") == "What is it?"
    rng = np.random.default_rng(1)
    heard = Counter(people.aloud("Turn on the fan.", rng) for _ in range(300))
    assert heard["Turn on the fan."] > 240 and any(text.endswith(" turn on the fan.") for text in heard)


def test_of_several_utterances_the_last_question_or_command_is_answered():
    hello, question = Utterance("Hello.", "chat", "Hello!"), Utterance("What is it?", "x", "It is.")
    command, noted = Utterance("Turn on the fan.", "switch", "Okay."), Utterance("I am Ben.", "name_alone", "Hi, Ben.")
    assert people.joined([question, hello]) == Utterance("What is it? Hello.", "joined", "It is.")
    assert people.joined([question, command, noted]).answer == "Okay."
    assert people.joined([hello, noted]).answer == "Hi, Ben."


def test_made_up_and_foreign_words_are_none_of_the_world():
    known = {word for text in people.WORDS for word in plain(text).split()}
    of = {split: {text.rstrip(".").lower() for text in people.aliens(split)} for split in SPLITS}
    assert not known & set.union(*of.values())
    assert not of["train"] & of["test"] and not of["train"] & of["dev"]
    assert len(people.ALIENS) > 500 and len(of["test"]) > 80
    held_out = {word for language in HELD_OUT for word in FOREIGN[language].split()}
    assert not held_out & of["train"] and held_out & of["test"]
    rng = np.random.default_rng(0)
    drawn = [people.alien(rng, "test").rstrip(".").lower().split() for _ in range(100)]
    assert {word for words in drawn for word in words} <= of["test"] | {"a", "the"}
    assert {len(words) for words in drawn} >= {1, 2, 3, 4}


def test_no_word_that_nano_must_decline_in_the_test_is_one_of_the_world():
    known = {word for text in people.WORDS for word in plain(text).split()}
    assert not known & {*unknown_words()["test"], *unknown_words()["dev"]}
