"""What is typed without a sound: greetings, facts, sums in figures, and questions about a sound that is not there."""

import re

import numpy as np

from qwen2_audio.evaluate.nano.typed import NO_SOUND, UNKNOWN, typed
from qwen2_audio.evaluate.nano.world.facts import CHAT
from qwen2_audio.evaluate.nano.world.hundreds import number
from qwen2_audio.evaluate.nano.world.talk import SELF
from qwen2_audio.evaluate.nano.world.utterance import plain


def drawn(count, **options):
    rng = np.random.default_rng(2)
    return [typed(rng, "test", **options) for _ in range(count)]


def test_each_text_has_one_answer_in_haste_or_not():
    answers = {}
    for text, answer in drawn(4000):
        if not re.search(r"\d", text):
            assert answers.setdefault(plain(text), answer) == answer, text
    assert answers["hello"] == CHAT[0].answer and answers["what do you hear"] == NO_SOUND
    assert answers["who are you"] == SELF and answers["can you hear me"] == NO_SOUND
    assert UNKNOWN in answers.values()
    texts = [text for text, _ in drawn(400)]
    assert any(text.islower() for text in texts) and not all(text.islower() for text in texts)


def test_sums_in_figures_are_answered_in_words():
    found = [(re.fullmatch(r"\D*?(\d+) ?(\+|-|plus|minus) ?(\d+)\D*", text), answer) for text, answer in drawn(3000)]
    sums = [(match, answer) for match, answer in found if match]
    assert len(sums) > 50
    for match, answer in sums:
        one, two = int(match[1]), int(match[3])
        assert plain(answer).endswith(f"is {number(one + two if match[2] in ('+', 'plus') else one - two)}")


def test_beside_a_clip_nobody_says_that_there_is_none():
    assert all(answer != NO_SOUND for _, answer in drawn(500, sound=True))
