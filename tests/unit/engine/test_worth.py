"""Guesses are made where they have paid, by the clock, for each number of answers; and tried again now and then."""

from __future__ import annotations

from itertools import pairwise

import pytest

from qwen2_audio.engine.step_size import Pace
from qwen2_audio.engine.worth import FIRST, LAST, RUN, Worth


def drive(worth: Worth, steps: int, with_guesses: tuple[int, float], without: tuple[int, float], decoding: int = 1):
    """Steps that give (tokens, seconds) either way: which of them guessed."""
    way = []
    for _ in range(steps):
        guessed = worth.pays(decoding)
        worth.add(decoding, guessed, *(with_guesses if guessed else without))
        way.append(guessed)
    return way


def test_both_ways_are_tried_first_and_then_the_better_one_goes_on():
    assert drive(Worth(), 40, (3, 0.2), (1, 0.1)) == [True] * RUN + [False] * RUN + [True] * (40 - 2 * RUN)
    assert drive(Worth(), 40, (1, 0.2), (1, 0.1)) == [True] * RUN + [False] * (40 - RUN)


@pytest.mark.parametrize(("guessing", "better"), [((3, 0.2), True), ((1, 0.2), False)])
def test_the_other_way_is_tried_again_less_and_less_often(guessing, better):
    way = drive(Worth(), 6000, guessing, (1, 0.1))
    others = [place for place, one in enumerate(way) if one is not better and place >= 2 * RUN]
    begins = others[::RUN]
    assert others == [begin + place for begin in begins for place in range(RUN)], "a run of them each time"
    gaps = [after - before for before, after in pairwise(begins)]
    assert begins[0] <= 2 * RUN + 2 * FIRST
    assert gaps == sorted(gaps) and gaps[-1] == LAST + RUN
    assert len(others) / len(way) < 0.02


def test_what_changes_is_noticed():
    worth = Worth()
    drive(worth, 200, (3, 0.1), (1, 0.1))
    assert worth.pays(1)
    way = drive(worth, 2000, (1, 0.3), (1, 0.1))
    assert way[0] and sum(way) < 300, "the guesses of a while, until both were tried again"
    drive(worth, 4000, (4, 0.1), (1, 0.1))
    assert worth.pays(1)


def test_each_number_of_answers_is_a_case_of_its_own():
    worth = Worth()
    drive(worth, 30, (3, 0.1), (1, 0.1), decoding=1)
    drive(worth, 30, (20, 0.9), (16, 0.3), decoding=16)
    assert worth.pays(1) and not worth.pays(16)
    assert worth.pays(2), "unknown: try it"


def test_the_first_step_of_a_try_has_catching_up_to_do_and_does_not_count():
    worth = Worth()
    for place in range(2 * RUN):
        guessed = worth.pays(1)
        worth.add(1, guessed, 3 if guessed else 1, 9.0 if place == 0 else 0.1)
    assert worth.pays(1)


def test_a_step_that_went_the_other_way_tells_nothing():
    worth = Worth()
    for _ in range(50):
        worth.add(1, False, 1, 0.1)  # the draft had nothing to say yet
    assert worth.pays(1)
    assert drive(worth, 2 * RUN, (3, 0.1), (1, 0.1)) == [True] * RUN + [False] * RUN


def test_a_pace_is_learnt_from_large_passes_within_bounds():
    pace = Pace(0.1)
    assert pace.tokens == 128
    pace.learn(31, 1e-6)
    assert pace.tokens == 128
    pace.learn(64, 0.2)  # 32 in 0.1 s
    assert pace.tokens == 80
    for _ in range(20):
        pace.learn(64, 1e-5)
    assert pace.tokens == 1024
    for _ in range(20):
        pace.learn(64, 100.0)
    assert pace.tokens == 32
    fixed = Pace(0.1, 17)
    fixed.learn(100, 0.001)
    assert fixed.tokens == 17
