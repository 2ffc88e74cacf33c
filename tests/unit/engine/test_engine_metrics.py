from dataclasses import fields

import pytest

from qwen2_audio.engine.metrics import SECONDS, Histogram, Stats
from qwen2_audio.types import Usage


def test_a_value_counts_up_to_its_bound_and_above_the_last():
    histogram = Histogram((1.0, 2.0))
    for value in (0.0, 1.0, 1.5, 2.0, 2.1, 99.0):
        histogram.add(value)
    assert histogram.counts == [2, 2, 2] and histogram.count == 6
    assert histogram.sum == pytest.approx(105.6)


def test_a_new_histogram_is_empty_and_its_own():
    one, other = Histogram(), Histogram()
    one.add(0.3)
    assert other.counts == [0] * (len(SECONDS) + 1) and other.sum == 0 == other.count
    assert one.bounds == SECONDS == tuple(sorted(SECONDS))


def test_an_end_counts_by_its_reason_and_the_prompt_once_a_request():
    stats = Stats()
    for index, reason in enumerate(("stop", "stop", "length")):
        stats.finish(reason, Usage(50, 25, 7, cached_tokens=40), 1.0, index)
    assert stats.finished == {"stop": 2, "length": 1}
    assert (stats.prompt_tokens, stats.audio_tokens, stats.seconds_heard) == (50, 25, 1.0)
    assert stats.completion_tokens == 21
    sizes = [value for value in vars(stats).values() if isinstance(value, Histogram) and value.sum == 50]
    assert len(sizes) == 1 and sizes[0].count == 1


def test_never_more_of_a_prompt_is_cached_than_there_is_of_it():
    stats = Stats()
    for index in range(3):
        stats.finish("stop", Usage(50, 25, 7, cached_tokens=40 + index), 1.0, index)
    assert stats.cached_tokens == 40 <= stats.prompt_tokens, "what answer 0 found; the others share with it"


def test_a_snapshot_stays_as_it_is():
    stats = Stats()
    stats.finish("stop", Usage(5, 0, 7), 0.0, 0)
    stats.first_token.add(0.3)
    held = stats.snapshot()
    same = stats.snapshot()
    stats.submitted += 1
    stats.finish("error", Usage(5, 0, 7), 0.0, 0)
    stats.first_token.add(0.3)
    assert held == same != stats
    assert held.finished == {"stop": 1} and held.first_token.count == 1 and held.submitted == 0


def test_all_begin_at_nothing():
    stats = Stats()
    for item in fields(stats):
        value = getattr(stats, item.name)
        assert (value.count if isinstance(value, Histogram) else value) in (0, {}), item.name
